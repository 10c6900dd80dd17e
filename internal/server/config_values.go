package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/issuers"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/oauth"
	"go.yaml.in/yaml/v3"
)

// networks are ranges of addresses in the configuration.
type networks []netip.Prefix

// UnmarshalYAML reads a list of ranges and says in which line one is none.
func (n *networks) UnmarshalYAML(list *yaml.Node) error {
	if list.Kind != yaml.SequenceNode {
		if list.Value == "" {
			return fmt.Errorf("line %d: a list belongs here, such as [10.0.0.0/8]", list.Line)
		}
		return fmt.Errorf("line %d: %s stands where a list belongs, such as [%s]", list.Line, list.Value, list.Value)
	}
	*n = nil
	for _, item := range list.Content {
		p, err := netip.ParsePrefix(item.Value)
		if a, single := netip.ParseAddr(item.Value); err != nil && single == nil {
			return fmt.Errorf("line %d: %s is one address; write %s/%d", item.Line, item.Value, item.Value, a.BitLen())
		}
		if err != nil {
			return fmt.Errorf("line %d: %q is not a range of addresses such as 10.0.0.0/8", item.Line, item.Value)
		}
		*n = append(*n, p)
	}
	return nil
}

// checkSlips refuses texts that nobody meant: empty ones in lists, and spaces
// around those that are compared with something.
func checkSlips(at string, v reflect.Value) error {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return checkSlips(at, v.Elem())
		}
	case reflect.String:
		// A folded text of YAML ends with a new line.
		if s := v.String(); strings.Trim(s, " \t") != s || s != "" && strings.TrimSpace(s) == "" {
			return fmt.Errorf("%s: there are spaces around %q", at, s)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Tag.Get("yaml")
			if name == "" || name == "-" {
				continue
			}
			if err := checkSlips(strings.TrimPrefix(at+"."+name, "."), v.Field(i)); err != nil {
				return err
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			here := at + "[" + strconv.Itoa(i) + "]"
			if item := v.Index(i); item.Kind() == reflect.String && item.String() == "" {
				return fmt.Errorf("%s: it is empty", here)
			}
			if err := checkSlips(here, v.Index(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkListen accepts a host and a port that exists.
func checkListen(listen string) error {
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen: %s is not host:port", listen)
	}
	if _, err := net.DefaultResolver.LookupPort(context.Background(), "tcp", port); err != nil || port == "" {
		return fmt.Errorf("listen: %q is not a port", port)
	}
	return nil
}

// pairs is how a PostgreSQL address may be written elsewhere.
var pairs = regexp.MustCompile(`(^|\s)(host|hostaddr|port|user|dbname|service)\s*=`)

// checkStorePath refuses what would become the name of a file and is the address
// of a database.
func checkStorePath(path string) error {
	if scheme, _, ok := strings.Cut(path, "://"); ok {
		return fmt.Errorf("store: %s:// is not known; give the path of an SQLite file, or a postgres:// address", scheme)
	}
	if pairs.MatchString(path) {
		return errors.New("store: write the address of the database as a URL, such as postgres://user@host:5432/name")
	}
	return nil
}

// The largest key set and logo that a document may lead to.
const (
	mostJWKSBytes = 1 << 20
	mostLogoBytes = 4 << 20
)

// checkCIMD refuses by their keys what the resolver would refuse without them.
func (c *Config) checkCIMD() error {
	d := c.CIMD
	switch {
	case d.JWKSBytes < 1024 || d.JWKSBytes > mostJWKSBytes:
		return fmt.Errorf("cimd.jwks_bytes: %d is not between 1024 and %d", d.JWKSBytes, mostJWKSBytes)
	case d.LogoBytes < 1024 || d.LogoBytes > mostLogoBytes:
		return fmt.Errorf("cimd.logo_bytes: %d is not between 1024 and %d", d.LogoBytes, mostLogoBytes)
	case d.Timeout > 5*time.Second:
		return errors.New("cimd.timeout: 5s at most")
	case d.Cache.Floor > d.Cache.Ceiling:
		return fmt.Errorf("cimd.cache: the floor %v is above the ceiling %v", d.Cache.Floor, d.Cache.Ceiling)
	case d.Cache.LastKnownGood > 24*time.Hour:
		return errors.New("cimd.cache.last_known_good: 24h at most")
	}
	for i, raw := range d.Egress.PrivateURLs {
		if u, err := url.Parse(raw); err != nil || u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("cimd.egress.private_urls[%d]: %q is not an https URL", i, raw)
		}
	}
	return nil
}

// checkNames refuses what a rule or a resource names and nobody will ever bring:
// scopes that no resource has, grants that do not exist, clients that no URL can
// be. Such a rule would be a silent no, or a silent nothing.
func (c *Config) checkNames(set *policy.Set) error {
	known := oauth.Scopes{oauth.ScopeOpenID, oauth.ScopeOfflineAccess}
	for _, r := range set.Resources {
		known = known.Or(r.ScopeNames())
		for _, alias := range r.Aliases {
			if u, err := url.Parse(alias); err != nil || u.Scheme == "" || u.Host == "" || strings.Contains(alias, "#") {
				return fmt.Errorf("resource %s: the alias %s must be an absolute URL without a fragment", r.ID, alias)
			}
		}
	}
	if strange := set.Unnamed.Without(known); len(strange) > 0 {
		return fmt.Errorf("policy.unnamed_scopes: no resource has the scope %s", strange[0])
	}
	for _, r := range set.Rules {
		if strange := r.Scopes.Without(known); len(strange) > 0 {
			return fmt.Errorf("policy rule %q: scopes: no resource has the scope %s", r.Name, strange[0])
		}
		for _, g := range r.Grants {
			if !slices.Contains(grants, g) {
				return fmt.Errorf("policy rule %q: grants: %q is not known; the grants are %s", r.Name, g, strings.Join(grants, ", "))
			}
		}
		if err := c.checkMatchable(r); err != nil {
			return fmt.Errorf("policy rule %q: %w", r.Name, err)
		}
	}
	return nil
}

var grants = []string{
	oauth.GrantAuthorizationCode, oauth.GrantRefreshToken, oauth.GrantDeviceCode,
	oauth.GrantClientCredentials, oauth.GrantJWTBearer, oauth.GrantTokenExchange,
}

// checkMatchable refuses a rule whose pattern no client_id can match here.
func (c *Config) checkMatchable(r policy.Rule) error {
	key, sample := "client", r.Client
	switch {
	case r.Prefix != "":
		key, sample = "prefix", r.Prefix+"c"
	case r.Host != "":
		key, sample = "host", "https://"+strings.Replace(r.Host, "*.", "any.", 1)+"/c"
	case !cimd.LooksLikeURL(r.Client):
		return nil
	}
	_, err := c.urlRules().Parse(sample)
	if e, ok := errors.AsType[*cimd.Error](err); ok {
		return fmt.Errorf("%s: no client can be called that: %s (%s)", key, e.Hint, e.Rule)
	}
	return err
}

// CheckFolder reports whether there is a place for an SQLite database: a slip in
// its path makes no folder.
func (c *Config) CheckFolder() error {
	if c.shared() {
		return nil
	}
	folder := filepath.Dir(c.path(c.Store))
	if at, err := os.Stat(folder); err != nil || !at.IsDir() {
		return fmt.Errorf("store: there is no folder %s; make it first", folder)
	}
	return nil
}

// NotOpened is an error about the store with the name of its file; an address of
// PostgreSQL is in the error already, and may hold a password.
func (c *Config) NotOpened(err error) error {
	if c.shared() {
		return fmt.Errorf("store: %w", err)
	}
	return fmt.Errorf("store %s: %w", c.StorePath(), err)
}

// checkKeyFiles reads the files that hold keys of others.
func (c *Config) checkKeyFiles() error {
	files := map[string]string{}
	for i, a := range c.Attestation.Attesters {
		files[fmt.Sprintf("attestation.attesters[%d].jwks_file", i)] = a.JWKSFile
	}
	for i, j := range c.IDJAG.Issuers {
		files[fmt.Sprintf("id_jag.issuers[%d].jwks_file", i)] = j.JWKSFile
	}
	for _, key := range slices.Sorted(maps.Keys(files)) {
		if files[key] == "" {
			continue
		}
		if _, err := issuers.New(issuers.Config{File: c.path(files[key])}); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}
