-- Keys are bytea: ordered by their bytes whatever the database's collation, and any text is allowed, also NUL.
CREATE TABLE records (
    key BYTEA PRIMARY KEY,
    value BYTEA NOT NULL,
    revision BIGINT NOT NULL
);

-- What the newest commits did; a NULL value is a delete. Pruned from the front.
CREATE TABLE events (
    revision BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    key BYTEA NOT NULL,
    value BYTEA,
    PRIMARY KEY (revision, seq)
);

-- Times are microseconds since 1970, by the server's clock.
CREATE TABLE leases (
    name BYTEA PRIMARY KEY,
    holder BYTEA NOT NULL,
    token BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

-- The counters: the newest commit, the newest commit that is no longer in events, the newest lease token.
-- Every commit updates this row first and holds its lock to the end, so commits come in the order of their
-- numbers. Room in the page keeps the row where it is.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL,
    oldest BIGINT NOT NULL,
    lease_token BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO meta (id, revision, oldest, lease_token) VALUES (1, 0, 0, 0);
