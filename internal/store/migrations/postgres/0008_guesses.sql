-- +goose Up
-- How many wrong codes of devices were typed, by account, by network and by all,
-- until when. The keys are hashes under a key that is not in the database.
CREATE TABLE guesses (
    key        BYTEA PRIMARY KEY,
    n          BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX guesses_expiry ON guesses (expires_at);
