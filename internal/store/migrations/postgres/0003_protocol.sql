-- +goose Up
-- What the whole protocol needs: pushed requests, devices, identities of other
-- issuers, dynamic registration and tokens that are bound to a key.

ALTER TABLE users ADD COLUMN email_key TEXT COLLATE "C" NOT NULL DEFAULT ''; -- the address with A-Z in lower case
UPDATE users SET email_key = translate(email, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz');
CREATE INDEX users_email ON users (email_key, id) WHERE email_key <> '';

ALTER TABLE sessions ADD COLUMN sid TEXT COLLATE "C" NOT NULL DEFAULT ''; -- the name of the session that clients may know
UPDATE sessions SET sid = replace(gen_random_uuid()::text, '-', '');

ALTER TABLE clients ADD COLUMN expires_at BIGINT NOT NULL DEFAULT 0; -- 0: never; else so long after last_used_at
ALTER TABLE clients ADD COLUMN registration_hash TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE clients ADD COLUMN metadata BYTEA;
ALTER TABLE clients ADD COLUMN post_logout_redirect_uris TEXT COLLATE "C" NOT NULL DEFAULT '[]';
ALTER TABLE clients ADD COLUMN backchannel_logout_uri TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX clients_dynamic ON clients (expires_at, source) WHERE source = 'dcr';

ALTER TABLE grants ADD COLUMN kind TEXT COLLATE "C" NOT NULL DEFAULT 'authorization_code'; -- how it began
ALTER TABLE grants ADD COLUMN jkt TEXT COLLATE "C" NOT NULL DEFAULT ''; -- of the DPoP key
ALTER TABLE grants ADD COLUMN instance_jkt TEXT COLLATE "C" NOT NULL DEFAULT ''; -- of the attested instance
ALTER TABLE grants ADD COLUMN cert_thumbprint TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN details TEXT COLLATE "C" NOT NULL DEFAULT ''; -- authorization_details, as JSON
ALTER TABLE grants ADD COLUMN sid TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE grants ADD COLUMN actor TEXT COLLATE "C" NOT NULL DEFAULT ''; -- the act claim, as JSON
CREATE INDEX grants_session ON grants (sid, id) WHERE sid <> '';
CREATE INDEX grants_alone ON grants (user_id, ended_at) WHERE user_id IS NULL AND ended_at IS NOT NULL;

ALTER TABLE codes ADD COLUMN jkt TEXT COLLATE "C" NOT NULL DEFAULT ''; -- the key demanded at redemption

-- The client of a pushed request or of a device needs no row: nobody has agreed
-- to it yet.
CREATE TABLE pushed_requests (
    hash       BYTEA PRIMARY KEY,
    client_id  TEXT COLLATE "C" NOT NULL,
    request    BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT -- when a person answered it
);
CREATE INDEX pushed_requests_expiry ON pushed_requests (expires_at);
CREATE INDEX pushed_requests_live ON pushed_requests (expires_at, used_at) WHERE used_at IS NULL;

CREATE TABLE device_codes (
    hash            BYTEA PRIMARY KEY,
    user_code       BYTEA NOT NULL UNIQUE,
    client_id       TEXT COLLATE "C" NOT NULL,
    resource        TEXT COLLATE "C" NOT NULL,
    scopes          TEXT COLLATE "C" NOT NULL,
    details         TEXT COLLATE "C" NOT NULL,
    auth_methods    TEXT COLLATE "C" NOT NULL,
    auth_method     TEXT COLLATE "C" NOT NULL,
    key_thumbprint  TEXT COLLATE "C" NOT NULL,
    jkt             TEXT COLLATE "C" NOT NULL,
    instance_jkt    TEXT COLLATE "C" NOT NULL,
    cert_thumbprint TEXT COLLATE "C" NOT NULL,
    security_digest TEXT COLLATE "C" NOT NULL,
    version         BIGINT NOT NULL,
    ip              TEXT COLLATE "C" NOT NULL,
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    next_poll_at    BIGINT NOT NULL,
    poll_interval   BIGINT NOT NULL, -- microseconds
    too_fast        BIGINT NOT NULL, -- whether the last poll came before its time
    state           TEXT COLLATE "C" NOT NULL, -- pending, approved, denied, used
    grant_id        TEXT COLLATE "C" NOT NULL -- '' before a yes
);
CREATE INDEX device_codes_expiry ON device_codes (expires_at);
CREATE INDEX device_codes_live ON device_codes (expires_at, state) WHERE state IN ('pending', 'approved');

-- Who an account is elsewhere. The row lives as long as the account.
CREATE TABLE identities (
    issuer       TEXT COLLATE "C" NOT NULL,
    tenant       TEXT COLLATE "C" NOT NULL, -- '' for issuers that have none
    subject      TEXT COLLATE "C" NOT NULL,
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id),
    email        TEXT COLLATE "C" NOT NULL,
    created_at   BIGINT NOT NULL,
    last_seen_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, tenant, subject)
);
CREATE INDEX identities_user ON identities (user_id);
