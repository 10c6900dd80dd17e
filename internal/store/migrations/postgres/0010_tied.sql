-- +goose Up
-- From which generation of refresh tokens on a family belongs to the keys of its
-- grant, where it began without: who presents an older one again, and has no key
-- to show for it, is noticed all the same. 0: from its beginning.
ALTER TABLE grants ADD COLUMN jkt_since BIGINT NOT NULL DEFAULT 0;
ALTER TABLE grants ADD COLUMN instance_since BIGINT NOT NULL DEFAULT 0;
