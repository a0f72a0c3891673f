-- Keys are blobs: ordered by their bytes, and any text is allowed, also NUL.
CREATE TABLE records (
    key BLOB PRIMARY KEY NOT NULL,
    value BLOB NOT NULL,
    revision INTEGER NOT NULL
);

-- What the newest commits did; a NULL value is a delete. Pruned from the front.
CREATE TABLE events (
    revision INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB,
    PRIMARY KEY (revision, seq)
) WITHOUT ROWID;

-- Times are microseconds since 1970.
CREATE TABLE leases (
    name BLOB PRIMARY KEY NOT NULL,
    holder TEXT NOT NULL,
    token INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);

-- The counters: the newest commit, the newest commit that is no longer in events, the newest lease token.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    oldest INTEGER NOT NULL,
    lease_token INTEGER NOT NULL
);
INSERT INTO meta (id, revision, oldest, lease_token) VALUES (1, 0, 0, 0);
