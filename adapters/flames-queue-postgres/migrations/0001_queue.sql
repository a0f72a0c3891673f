-- All times are microseconds since 1970 by the database's clock, so that the clocks of nodes do not matter.
CREATE FUNCTION flames_queue.now_us() RETURNS bigint LANGUAGE sql STABLE
AS $$ SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint $$;

CREATE SEQUENCE flames_queue.job_id;

CREATE TABLE flames_queue.job (
    id           bigint   PRIMARY KEY DEFAULT nextval('flames_queue.job_id'),
    queue        text     NOT NULL,
    payload      bytea    NOT NULL,
    enqueued_at  bigint   NOT NULL,
    max_attempts smallint NOT NULL,
    attempt      smallint NOT NULL DEFAULT 0, -- of the last lease, and its token
    state        text     NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'leased', 'dead')),
    due          bigint   NOT NULL,           -- waiting: ready then; leased: expires then
    consumer     text
);
CREATE INDEX job_due ON flames_queue.job (queue, due) WHERE state <> 'dead';
CREATE INDEX job_dead ON flames_queue.job (queue, id) WHERE state = 'dead';

CREATE TABLE flames_queue.failure (
    job_id   bigint   NOT NULL REFERENCES flames_queue.job (id) ON DELETE CASCADE,
    attempt  smallint NOT NULL,
    consumer text     NOT NULL,
    kind     text     NOT NULL CHECK (kind IN ('nacked', 'expired')),
    reason   text     NOT NULL,
    PRIMARY KEY (job_id, attempt)
);

CREATE TABLE flames_queue.dedup (
    queue  text   NOT NULL,
    key    text   NOT NULL,
    job_id bigint NOT NULL,
    until  bigint NOT NULL,
    PRIMARY KEY (queue, key)
);
CREATE INDEX dedup_until ON flames_queue.dedup (until);
