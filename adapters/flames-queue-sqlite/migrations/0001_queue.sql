-- Times are microseconds since 1970, by this machine's clock.
CREATE TABLE job (
    id           INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, also after a delete
    queue        TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    enqueued_at  INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    attempt      INTEGER NOT NULL DEFAULT 0,        -- of the last lease, and its token
    state        TEXT    NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'leased', 'dead')),
    due          INTEGER NOT NULL,                  -- waiting: ready then; leased: expires then
    consumer     TEXT
) STRICT;
CREATE INDEX job_due ON job (queue, state, due);

CREATE TABLE failure (
    job_id   INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    attempt  INTEGER NOT NULL,
    consumer TEXT    NOT NULL,
    kind     TEXT    NOT NULL CHECK (kind IN ('nacked', 'expired')),
    reason   TEXT    NOT NULL,
    PRIMARY KEY (job_id, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE dedup (
    queue  TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    job_id INTEGER NOT NULL,
    until  INTEGER NOT NULL,
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX dedup_until ON dedup (until);
