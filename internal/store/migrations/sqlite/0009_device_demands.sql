-- +goose Up
-- What a device asked for about the sign-in of the person who answers it.
ALTER TABLE device_codes ADD COLUMN acr_values TEXT NOT NULL DEFAULT '';
ALTER TABLE device_codes ADD COLUMN max_age TEXT NOT NULL DEFAULT ''; -- as it was asked for
