package server

import (
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

//go:embed bonafide.yaml
var configTemplate string

// InitOptions says what `bonafide init` writes into the new configuration.
type InitOptions struct {
	Dir      string // where to write; it is made if it is not there
	Issuer   string
	Resource string // identifier of the first protected server
}

// Dev reports whether the issuer needs --dev: http, on loopback.
func (o InitOptions) Dev() bool { return strings.HasPrefix(o.Issuer, "http://") }

// Init writes a commented configuration and a fresh key file, and returns their
// paths. It never overwrites either.
func Init(o InitOptions) (config, key string, err error) {
	config, key = filepath.Join(o.Dir, "bonafide.yaml"), filepath.Join(o.Dir, "bonafide.key")
	text := strings.NewReplacer("{{issuer}}", o.Issuer, "{{resource}}", o.Resource).Replace(configTemplate)
	if _, err := Parse([]byte(text), o.Dir, o.Dev()); err != nil {
		return "", "", err
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return "", "", err
	}
	if err := writeNew(config, text, 0o644); err != nil {
		return "", "", err
	}
	if err := writeNew(key, oauth.RandomToken(32)+"\n", 0o600); err != nil {
		return "", "", err
	}
	return config, key, nil
}

func writeNew(path, text string, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already; it was left as it is", path)
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// readKey reads the master key. A file that others can read is refused, because
// whoever holds it can sign tokens with a copy of the database (AD-14).
func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key_file: %w (bonafide init makes one)", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key_file: %s can be read by others; run chmod 600 on it", path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key_file: %w", err)
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimSpace(string(raw)))
	if err != nil || len(key) != 32 {
		return nil, fmt.Errorf("key_file: %s does not hold 32 octets in base64url", path)
	}
	return key, nil
}

// CheckFiles reports whether the files that the configuration names can be used,
// and whether all else is as the parts of the server want it.
func (c *Config) CheckFiles() error {
	if _, err := readKey(c.path(c.KeyFile)); err != nil {
		return err
	}
	if err := c.CheckFolder(); err != nil {
		return err
	}
	if c.TLS.CertFile != "" {
		if _, err := c.certificate(); err != nil {
			return err
		}
	}
	if _, err := web.NewEdge(web.EdgeConfig{Issuer: c.Issuer, Brand: web.Brand{Name: c.Brand.Name, LogoPath: c.path(c.Brand.Logo)}}); err != nil {
		return err
	}
	if err := c.checkKeyFiles(); err != nil {
		return err
	}
	for i := range c.Upstream {
		if _, err := c.Upstream[i].secret(c.path); err != nil {
			return err
		}
	}
	rc, err := c.Resolver()
	if err != nil {
		return err
	}
	r, err := cimd.New(rc)
	if err != nil {
		return fmt.Errorf("cimd: %w", err)
	}
	return r.Close()
}

// Advice returns what works and is probably not meant, in words for the person
// who runs the server.
func (c *Config) Advice() []string {
	var out []string
	if c.TLS.CertFile == "" && len(c.TrustedProxies) == 0 && strings.HasPrefix(c.Issuer, "https:") {
		out = append(out, "trusted_proxies is empty: behind a proxy everybody seems to come from one address, and one visitor who guesses passwords slows down the sign-in of all")
	}
	for _, r := range c.Resource {
		if len(r.Scopes) > 0 && len(r.DefaultScopes) == 0 {
			out = append(out, fmt.Sprintf("resource %s has no default_scopes: a client that asks for no scope is refused there", r.ID))
		}
	}
	return out
}
