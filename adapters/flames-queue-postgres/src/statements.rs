//! The SQL of each call: one statement each, so that a call is one round trip and all or nothing.
//!
//! `statement_timestamp()` (in `now_us`) is fixed when a statement starts. A statement that then waits for a row
//! sees the row as it is afterwards, and its conditions are checked again.

/// $1 queue, $2 payload, $3 max attempts, $4 delay
pub(crate) const ENQUEUE: &str = "
    WITH added AS (
        INSERT INTO flames_queue.job (queue, payload, enqueued_at, max_attempts, due)
        SELECT $1, $2, now, $3, now + $4 FROM flames_queue.now_us() AS now
        RETURNING id)
    SELECT id, pg_notify('flames_queue', $1)::text FROM added";

/// $5 key, $6 window. No row: the key was used within its window.
///
/// Two enqueues with one key meet at the primary key of `dedup`: the second waits for the first to commit.
pub(crate) const ENQUEUE_ONCE: &str = "
    WITH swept AS (
        DELETE FROM flames_queue.dedup WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM flames_queue.dedup
            WHERE until <= flames_queue.now_us() AND (queue, key) <> ($1, $5)
            LIMIT 100 FOR UPDATE SKIP LOCKED))),
    once AS (
        INSERT INTO flames_queue.dedup AS old (queue, key, job_id, until)
        VALUES ($1, $5, nextval('flames_queue.job_id'), flames_queue.now_us() + $6)
        ON CONFLICT (queue, key) DO UPDATE SET job_id = excluded.job_id, until = excluded.until
        WHERE old.until <= flames_queue.now_us()
        RETURNING job_id),
    added AS (
        INSERT INTO flames_queue.job (id, queue, payload, enqueued_at, max_attempts, due)
        SELECT job_id, $1, $2, now, $3, now + $4 FROM once, flames_queue.now_us() AS now
        RETURNING id)
    SELECT id, pg_notify('flames_queue', $1)::text FROM added";

/// $1 queue, $2 key
pub(crate) const FIRST_OF_KEY: &str = "SELECT job_id FROM flames_queue.dedup WHERE queue = $1 AND key = $2";

/// $1 queue, $2 consumer, $3 visibility, $4 most jobs.
///
/// Takes what waits and is ready, and what was leased and has expired; of the latter, what has no attempts left
/// becomes dead instead.
pub(crate) const LEASE: &str = "
    WITH picked AS (
        SELECT id, state, attempt, max_attempts, consumer FROM flames_queue.job
        WHERE queue = $1 AND state <> 'dead' AND due <= flames_queue.now_us()
        ORDER BY due LIMIT $4 FOR UPDATE SKIP LOCKED),
    expired AS (
        INSERT INTO flames_queue.failure (job_id, attempt, consumer, kind, reason)
        SELECT id, attempt, consumer, 'expired', '' FROM picked WHERE state = 'leased'),
    buried AS (
        UPDATE flames_queue.job SET state = 'dead' FROM picked
        WHERE job.id = picked.id AND picked.state = 'leased' AND picked.attempt >= picked.max_attempts)
    UPDATE flames_queue.job
    SET state = 'leased', attempt = picked.attempt + 1, consumer = $2, due = flames_queue.now_us() + $3
    FROM picked
    WHERE job.id = picked.id AND (picked.state = 'waiting' OR picked.attempt < picked.max_attempts)
    RETURNING job.id, job.payload, job.attempt, job.enqueued_at, job.due";

/// $1 queue. In how many microseconds to look again.
pub(crate) const NEXT_DUE: &str = "
    SELECT min(due) - flames_queue.now_us() FROM flames_queue.job WHERE queue = $1 AND state <> 'dead'";

/// $1 id, $2 queue, $3 attempt, $4 visibility
pub(crate) const EXTEND: &str = "
    WITH extended AS (
        UPDATE flames_queue.job SET due = flames_queue.now_us() + $4
        WHERE id = $1 AND queue = $2 AND attempt = $3 AND state = 'leased' AND due > flames_queue.now_us()
        RETURNING due)
    SELECT due, pg_notify('flames_queue', $2)::text FROM extended";

/// $1 id, $2 queue, $3 attempt
pub(crate) const ACK: &str = "
    DELETE FROM flames_queue.job
    WHERE id = $1 AND queue = $2 AND attempt = $3 AND state = 'leased' AND due > flames_queue.now_us()
    RETURNING id";

/// $1 id, $2 queue, $3 attempt, $4 reason, $5 backoff
pub(crate) const NACK: &str = "
    WITH held AS (
        SELECT id, attempt, max_attempts, consumer FROM flames_queue.job
        WHERE id = $1 AND queue = $2 AND attempt = $3 AND state = 'leased' AND due > flames_queue.now_us()
        FOR UPDATE),
    failed AS (
        INSERT INTO flames_queue.failure (job_id, attempt, consumer, kind, reason)
        SELECT id, attempt, consumer, 'nacked', $4 FROM held),
    given_back AS (
        UPDATE flames_queue.job
        SET state = CASE WHEN held.attempt >= held.max_attempts THEN 'dead' ELSE 'waiting' END,
            due = flames_queue.now_us() + $5
        FROM held WHERE job.id = held.id
        RETURNING job.state = 'dead' AS dead)
    SELECT dead, pg_notify('flames_queue', $2)::text FROM given_back";

/// $1 queue. Ends the leases that are over, before anybody counts or lists.
pub(crate) const EXPIRE: &str = "
    WITH over AS (
        SELECT id, attempt, max_attempts, consumer FROM flames_queue.job
        WHERE queue = $1 AND state = 'leased' AND due <= flames_queue.now_us()
        FOR UPDATE SKIP LOCKED),
    failed AS (
        INSERT INTO flames_queue.failure (job_id, attempt, consumer, kind, reason)
        SELECT id, attempt, consumer, 'expired', '' FROM over)
    UPDATE flames_queue.job
    SET state = CASE WHEN over.attempt >= over.max_attempts THEN 'dead' ELSE 'waiting' END
    FROM over WHERE job.id = over.id";

/// $1 queue, $2 after, $3 most letters
pub(crate) const DEAD_LETTERS: &str = "
    SELECT id, payload, enqueued_at, max_attempts FROM flames_queue.job
    WHERE queue = $1 AND state = 'dead' AND id > $2 ORDER BY id LIMIT $3";

/// $1 jobs
pub(crate) const FAILURES: &str = "
    SELECT job_id, attempt, consumer, kind, reason FROM flames_queue.failure
    WHERE job_id = ANY ($1) ORDER BY job_id, attempt";

/// $1 id, $2 queue
pub(crate) const REQUEUE_DEAD: &str = "
    WITH dead AS (
        DELETE FROM flames_queue.job WHERE id = $1 AND queue = $2 AND state = 'dead'
        RETURNING payload, max_attempts),
    added AS (
        INSERT INTO flames_queue.job (queue, payload, enqueued_at, max_attempts, due)
        SELECT $2, payload, now, max_attempts, now FROM dead, flames_queue.now_us() AS now
        RETURNING id)
    SELECT id, pg_notify('flames_queue', $2)::text FROM added";

/// $1 id, $2 queue
pub(crate) const PURGE_DEAD: &str =
    "DELETE FROM flames_queue.job WHERE id = $1 AND queue = $2 AND state = 'dead' RETURNING id";

/// $1 queue
pub(crate) const DEPTH: &str = "
    SELECT count(*) FILTER (WHERE state = 'waiting' AND due <= now) AS ready,
           count(*) FILTER (WHERE state = 'waiting' AND due > now) AS delayed,
           count(*) FILTER (WHERE state = 'leased') AS leased,
           count(*) FILTER (WHERE state = 'dead') AS dead,
           max(now - due) FILTER (WHERE state = 'waiting' AND due <= now) AS oldest
    FROM flames_queue.job, flames_queue.now_us() AS now WHERE queue = $1";
