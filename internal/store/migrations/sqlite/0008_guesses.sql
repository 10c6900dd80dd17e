-- +goose Up
-- How many wrong codes of devices were typed, by account, by network and by all,
-- until when. The keys are hashes under a key that is not in the database.
CREATE TABLE guesses (
    key        BLOB PRIMARY KEY,
    n          INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX guesses_expiry ON guesses (expires_at);
