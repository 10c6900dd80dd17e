-- +goose Up
-- The document version that an operator holds a client to; 0 follows the document.
ALTER TABLE clients ADD COLUMN pinned_version BIGINT NOT NULL DEFAULT 0;
