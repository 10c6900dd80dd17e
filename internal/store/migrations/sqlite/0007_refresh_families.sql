-- +goose Up
-- A refresh token says which grant it is of and which in its family, and the
-- grant holds all that has to be known of it: a rotation changes one row and
-- writes none. Tokens from before keep their rows until those have expired.

ALTER TABLE grants ADD COLUMN family_hash BLOB; -- of what all tokens of the family share; NULL without one
ALTER TABLE grants ADD COLUMN absolute_at INTEGER NOT NULL DEFAULT 0; -- when the family ends, whatever happens; 0 without one
UPDATE grants SET absolute_at = COALESCE((SELECT r.absolute_at FROM refresh_tokens r WHERE r.hash = grants.head_hash), 0) WHERE head > 0;
