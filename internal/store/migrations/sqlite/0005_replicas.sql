-- +goose Up
-- What replicas and other programs on the same database tell each other: how
-- often each kind of thing was changed, and the policy that all of them follow.

CREATE TABLE revisions (
    topic    TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE policies (
    revision INTEGER PRIMARY KEY,
    body     BLOB NOT NULL,
    digest   TEXT NOT NULL,
    at       INTEGER NOT NULL
);
CREATE INDEX policies_digest ON policies (digest);
