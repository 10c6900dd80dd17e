// Package server puts the house together: it reads the configuration, builds
// each room once, mounts every route on one screen, and runs the daemon with
// its listeners, its timers and its signals.
package server

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
	"go.yaml.in/yaml/v3"
)

// Config is the configuration file. Every member has a default that suits a
// small installation; only issuer and one resource must be given. A key that is
// not listed here is an error.
type Config struct {
	// Issuer is the public identifier of this server, byte for byte as it stands
	// in tokens and metadata: an https URL without query and fragment.
	Issuer string `yaml:"issuer"`

	// Listen is where the server listens, such as 127.0.0.1:8080.
	Listen string `yaml:"listen"`

	// TLS names certificate files. Without them a reverse proxy ends TLS.
	TLS TLSConfig `yaml:"tls"`

	// TrustedProxies are the addresses whose X-Forwarded-For is believed.
	TrustedProxies networks `yaml:"trusted_proxies"`

	// Store is the database: the path of an SQLite file, or the postgres://
	// address of a PostgreSQL database that several replicas share.
	Store string `yaml:"store"`

	// KeyFile holds 32 random octets in base64 that protect signing keys and
	// what travels sealed through browsers. `bonafide init` makes one.
	KeyFile string `yaml:"key_file"`

	Brand    BrandConfig      `yaml:"brand"`
	CIMD     CIMDConfig       `yaml:"cimd"`
	Tokens   TokenConfig      `yaml:"tokens"`
	Sessions SessionConfig    `yaml:"sessions"`
	Audit    AuditConfig      `yaml:"audit"`
	Resource []ResourceConfig `yaml:"resources"`

	// Upstream are OpenID providers at which people may sign in; PasswordSignIn
	// lets them sign in with a password of ours (the default).
	Upstream       []UpstreamConfig `yaml:"upstream"`
	PasswordSignIn bool             `yaml:"password_sign_in"`

	// DefaultResource is the audience of a request that names none. With one
	// resource it is that one unless require_resource is set.
	DefaultResource string `yaml:"default_resource"`
	// RequireResource refuses requests that name no resource.
	RequireResource bool `yaml:"require_resource"`

	// UnknownScopes says what happens to scopes nobody knows: "drop" (and tell
	// the client, the default) or "refuse".
	UnknownScopes string `yaml:"unknown_scopes"`

	Policy PolicyConfig `yaml:"policy"`
	PAR    PARConfig    `yaml:"par"`
	Device DeviceConfig `yaml:"device"`

	Registration RegistrationConfig `yaml:"registration"`

	IDJAG    IDJAGConfig    `yaml:"id_jag"`
	Exchange ExchangeConfig `yaml:"token_exchange"`

	DPoP        DPoPConfig        `yaml:"dpop"`
	Attestation AttestationConfig `yaml:"attestation"`
	MTLS        MTLSConfig        `yaml:"mtls"`

	// Dev relaxes what stands between a developer and a first sign-in: issuers
	// and documents on loopback. It only works when every listener is on
	// loopback, and it cannot be set in the file: it is a command-line switch.
	Dev bool `yaml:"-"`

	dir string // of the configuration file; relative paths start here
}

// TLSConfig names the certificate chain and key, both PEM. They are read again
// on reload.
type TLSConfig struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// BrandConfig is what people see beside the name of Bonafide.
type BrandConfig struct {
	Name string `yaml:"name"`
	Logo string `yaml:"logo"`
}

// CIMDConfig says whether and how client documents are resolved.
type CIMDConfig struct {
	Enabled bool   `yaml:"enabled"`
	Profile string `yaml:"profile"` // mcp, cimd-02 or cimd-03

	// Fetch says when a document of a client that was never seen may be fetched:
	// "after_sign_in" (the default) or "at_once".
	Fetch string `yaml:"fetch"`

	AllowQuery     bool     `yaml:"allow_query"`
	AllowRootPath  bool     `yaml:"allow_root_path"`
	AllowTestNames bool     `yaml:"allow_test_names"` // hosts below .test and .example
	Ports          []uint16 `yaml:"ports"`            // beside 443

	DocumentBytes int64         `yaml:"document_bytes"`
	JWKSBytes     int64         `yaml:"jwks_bytes"`
	LogoBytes     int64         `yaml:"logo_bytes"`
	Timeout       time.Duration `yaml:"timeout"`

	Cache  CacheConfig  `yaml:"cache"`
	Egress EgressConfig `yaml:"egress"`
}

// CacheConfig bounds how long a document is used.
type CacheConfig struct {
	Floor         time.Duration `yaml:"floor"`
	Ceiling       time.Duration `yaml:"ceiling"`
	Default       time.Duration `yaml:"default"`
	LastKnownGood time.Duration `yaml:"last_known_good"`
}

// EgressConfig holds the exceptions to the address guard. Each covers document,
// keys and logo alike.
type EgressConfig struct {
	Proxy       string   `yaml:"proxy"`        // an http proxy; it then decides about addresses
	CAFile      string   `yaml:"ca_file"`      // certificates that are trusted beside the system's
	PrivateURLs []string `yaml:"private_urls"` // exact URLs that may be on private addresses
	Deny        networks `yaml:"deny"`         // refused beside the special-use addresses
}

// TokenConfig holds lifetimes and the signing algorithm.
type TokenConfig struct {
	SigningAlg      string        `yaml:"signing_alg"`
	Code            time.Duration `yaml:"code"`
	Access          time.Duration `yaml:"access"`
	RefreshIdle     time.Duration `yaml:"refresh_idle"`
	RefreshAbsolute time.Duration `yaml:"refresh_absolute"`
	RefreshGrace    time.Duration `yaml:"refresh_grace"`
}

// SessionConfig bounds how long somebody stays signed in.
type SessionConfig struct {
	Idle     time.Duration `yaml:"idle"`
	Absolute time.Duration `yaml:"absolute"`
}

// Defaults returns a configuration with every default filled in.
func Defaults() Config {
	return Config{
		Listen:  "127.0.0.1:8080",
		Store:   "bonafide.db",
		KeyFile: "bonafide.key",
		CIMD: CIMDConfig{
			Profile: string(cimd.ProfileMCP), Fetch: "after_sign_in",
			DocumentBytes: 5 << 10, JWKSBytes: 32 << 10, LogoBytes: 256 << 10, Timeout: 5 * time.Second,
			Cache: CacheConfig{Floor: time.Minute, Ceiling: 24 * time.Hour, Default: time.Hour, LastKnownGood: time.Hour},
		},
		Tokens: TokenConfig{
			SigningAlg: "ES256", Code: time.Minute, Access: 10 * time.Minute,
			RefreshIdle: 14 * 24 * time.Hour, RefreshAbsolute: 90 * 24 * time.Hour, RefreshGrace: 10 * time.Second,
		},
		Sessions:      SessionConfig{Idle: 12 * time.Hour, Absolute: 7 * 24 * time.Hour},
		Audit:         AuditConfig{Keep: 400 * 24 * time.Hour},
		UnknownScopes: "drop", PasswordSignIn: true,
		Policy:      PolicyConfig{Default: "ask"},
		PAR:         PARConfig{Life: time.Minute},
		Device:      defaultDevice(),
		Attestation: defaultAttestation(), Registration: defaultRegistration(),
	}
}

// Load reads a configuration file over the defaults and checks it. dev is the
// command-line switch.
func Load(path string, dev bool) (*Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w (bonafide init writes one; -c names another)", err)
	}
	c, err := Parse(raw, filepath.Dir(path), dev)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Parse is Load for a text. Relative paths in it start at dir.
func Parse(raw []byte, dir string, dev bool) (*Config, error) {
	c := Defaults()
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New(inWords(err.Error()))
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	c.Dev, c.dir = dev, dir
	if err := c.check(); err != nil {
		return nil, err
	}
	return &c, nil
}

func (c *Config) check() error {
	if err := checkSlips("", reflect.ValueOf(*c)); err != nil {
		return err
	}
	u, err := url.Parse(c.Issuer)
	switch {
	case c.Issuer == "":
		return errors.New("issuer: give the public URL of this server")
	case err != nil || u.Host == "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(c.Issuer, "#") || u.User != nil:
		return fmt.Errorf("issuer: %s must be an https URL without query, fragment and user information (META-04)", c.Issuer)
	case strings.HasSuffix(c.Issuer, "/"):
		return fmt.Errorf("issuer: leave out the slash at the end of %s; the issuer is compared byte for byte", c.Issuer)
	case u.Scheme == "http" && (!c.Dev || !loopbackHost(u.Hostname())):
		return fmt.Errorf("issuer: %s must be https; http on loopback needs --dev", c.Issuer)
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("issuer: %s must be https", c.Issuer)
	case !strings.HasPrefix(c.Issuer, u.Scheme+"://"+strings.ToLower(u.Host)):
		return fmt.Errorf("issuer: write scheme and host of %s in lower case; programs compare it byte for byte (META-03)", c.Issuer)
	case u.Path != "" && !plainPath.MatchString(u.EscapedPath()):
		return fmt.Errorf("issuer: the path of %s may hold letters, digits and -._~ only, in segments that are not dots", c.Issuer)
	}
	if (c.TLS.CertFile == "") != (c.TLS.KeyFile == "") {
		return errors.New("tls: give both cert_file and key_file, or neither")
	}
	if err := checkListen(c.Listen); err != nil {
		return err
	}
	if c.Dev {
		if err := onLoopback(c.Listen); err != nil {
			return err
		}
	}
	profiles := []string{string(cimd.ProfileMCP), string(cimd.ProfileCIMD02), string(cimd.ProfileCIMD03)}
	if !slices.Contains(profiles, c.CIMD.Profile) {
		return fmt.Errorf("cimd.profile: %q is not one of %s", c.CIMD.Profile, strings.Join(profiles, ", "))
	}
	if f := c.CIMD.Fetch; f != "after_sign_in" && f != "at_once" {
		return fmt.Errorf("cimd.fetch: %q is not one of after_sign_in, at_once", f)
	}
	if n := c.CIMD.DocumentBytes; n < 1024 || n > 64<<10 {
		return fmt.Errorf("cimd.document_bytes: %d is not between 1024 and 65536", n)
	}
	if c.UnknownScopes != "drop" && c.UnknownScopes != "refuse" {
		return fmt.Errorf("unknown_scopes: %q is not one of drop, refuse", c.UnknownScopes)
	}
	if err := c.checkUpstreams(); err != nil {
		return err
	}
	if len(c.Resource) == 0 {
		return errors.New("resources: name at least one protected server")
	}
	if err := c.checkNumbers(); err != nil {
		return err
	}
	if err := c.checkCIMD(); err != nil {
		return err
	}
	if !slices.Contains(jose.Algorithms, c.Tokens.SigningAlg) {
		return fmt.Errorf("tokens.signing_alg: %q is not one of %s", c.Tokens.SigningAlg, strings.Join(jose.Algorithms, ", "))
	}
	if c.Tokens.Code > 10*time.Minute {
		return errors.New("tokens.code: a code lives at most 10m (AUTHZ-20)")
	}
	if c.Tokens.RefreshGrace < 0 || c.Tokens.RefreshGrace > 30*time.Second {
		return errors.New("tokens.refresh_grace: between 0s and 30s")
	}
	if err := c.checkProofs(); err != nil {
		return err
	}
	if err := c.PAR.check(); err != nil {
		return err
	}
	if err := errors.Join(c.Device.check(), c.Registration.check(), c.Audit.check()); err != nil {
		return err
	}
	if err := c.checkStore(); err != nil {
		return err
	}
	set, err := c.PolicySet()
	if err != nil {
		return err
	}
	return errors.Join(c.IDJAG.check(), c.Exchange.check(set), c.checkFAPI(set), c.checkNames(set))
}

// plainPath is a path that no router, proxy or browser writes in another way.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`)

// checkNumbers refuses nothing and less, which the packages below would take for
// their own defaults.
func (c *Config) checkNumbers() error {
	for _, v := range []struct {
		name string
		n    int64
	}{
		{"cimd.timeout", int64(c.CIMD.Timeout)},
		{"cimd.cache.floor", int64(c.CIMD.Cache.Floor)}, {"cimd.cache.ceiling", int64(c.CIMD.Cache.Ceiling)},
		{"cimd.cache.default", int64(c.CIMD.Cache.Default)},
		{"tokens.code", int64(c.Tokens.Code)}, {"tokens.access", int64(c.Tokens.Access)},
		{"tokens.refresh_idle", int64(c.Tokens.RefreshIdle)}, {"tokens.refresh_absolute", int64(c.Tokens.RefreshAbsolute)},
		{"sessions.idle", int64(c.Sessions.Idle)}, {"sessions.absolute", int64(c.Sessions.Absolute)},
	} {
		if v.n <= 0 {
			return fmt.Errorf("%s: must be more than nothing", v.name)
		}
	}
	if c.CIMD.Cache.LastKnownGood < 0 {
		return errors.New("cimd.cache.last_known_good: 0s or more")
	}
	return nil
}

// onLoopback refuses --dev on a listener that others can reach (FETCH-07).
func onLoopback(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("listen: %s is not host:port", listen)
	}
	if !loopbackHost(host) {
		return fmt.Errorf("--dev is only for a server that listens on loopback, and listen is %s", listen)
	}
	return nil
}

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback() && a.Zone() == ""
}

func (c *Config) path(p string) string {
	if p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(c.dir, p)
}

// StorePath returns where the database is: a file, or the address of a server.
func (c *Config) StorePath() string {
	if c.shared() {
		return c.Store
	}
	return c.path(c.Store)
}

func scopes(names []string) oauth.Scopes { return oauth.Scopes(names) }
