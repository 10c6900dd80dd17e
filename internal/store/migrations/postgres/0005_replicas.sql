-- +goose Up
-- What replicas and other programs on the same database tell each other: how
-- often each kind of thing was changed, and the policy that all of them follow.

CREATE TABLE revisions (
    topic    TEXT COLLATE "C" PRIMARY KEY,
    revision BIGINT NOT NULL
);

CREATE TABLE policies (
    revision BIGINT PRIMARY KEY,
    body     BYTEA NOT NULL,
    digest   TEXT COLLATE "C" NOT NULL,
    at       BIGINT NOT NULL
);
CREATE INDEX policies_digest ON policies (digest);
