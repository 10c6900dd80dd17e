package server

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/bonafide-id/bonafide/internal/login"
	"github.com/bonafide-id/bonafide/internal/safehttp"
	"github.com/bonafide-id/bonafide/internal/upstream"
)

// UpstreamConfig is one OpenID provider at which people may sign in.
type UpstreamConfig struct {
	// Name stands in the redirect URI, <issuer>/login/callback/<name>.
	Name string `yaml:"name"`
	// Title is what people read: "Sign in with <title>". The name by default.
	Title string `yaml:"title"`
	// Issuer is byte for byte the issuer of its discovery document.
	Issuer   string `yaml:"issuer"`
	ClientID string `yaml:"client_id"`
	// ClientSecretFile holds the secret on its first line; without it we are a
	// public client there.
	ClientSecretFile string   `yaml:"client_secret_file"`
	Scopes           []string `yaml:"scopes"`
	// AllowPrivate lets the provider be at loopback and private addresses.
	// Link-local ones and the metadata services of clouds stay refused.
	AllowPrivate bool `yaml:"allow_private"`
	// Link says how somebody without a linked account gets one: "email", "create".
	Link    []string `yaml:"link"`
	Domains []string `yaml:"domains"`
	// EmailsVerified makes an address count as verified of which the provider does
	// not say whether it is. It is for one that is known to verify all of them.
	EmailsVerified bool `yaml:"emails_verified"`
	// ACR is what an acr of the provider is called here.
	ACR map[string]string `yaml:"acr"`
}

var upstreamName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// checkUpstreams checks what needs neither a file nor the network.
func (c *Config) checkUpstreams() error {
	if !c.PasswordSignIn && len(c.Upstream) == 0 {
		return errors.New("password_sign_in: nobody could sign in; name an upstream provider first")
	}
	names, issuers := map[string]bool{}, map[string]bool{}
	for i, u := range c.Upstream {
		at := "upstream[" + strconv.Itoa(i) + "]"
		issuer, err := url.Parse(u.Issuer)
		switch {
		case !upstreamName.MatchString(u.Name) || names[u.Name]:
			return fmt.Errorf("%s.name: give each provider a name of its own, of letters a-z, digits and hyphens", at)
		case err != nil || issuer.Scheme != "https" || issuer.Host == "" || issuer.User != nil || issuer.RawQuery != "" || issuer.Fragment != "":
			return fmt.Errorf("%s.issuer: %s is not a plain https URL", at, u.Issuer)
		case issuers[u.Issuer]:
			return fmt.Errorf("%s.issuer: %s stands twice", at, u.Issuer)
		case u.Issuer == c.Issuer:
			return fmt.Errorf("%s.issuer: that is this server", at)
		case u.ClientID == "":
			return fmt.Errorf("%s.client_id: give the identifier under which the provider knows this server", at)
		case len(u.Scopes) > 0 && !slices.Contains(u.Scopes, "openid"):
			return fmt.Errorf("%s.scopes: openid must be among them", at)
		case len(u.Link) > 0 && len(u.Domains) == 0:
			return fmt.Errorf("%s.domains: link needs the domains whose addresses are believed", at)
		}
		for _, l := range u.Link {
			if l != login.LinkEmail && l != login.LinkCreate {
				return fmt.Errorf("%s.link: %q is not one of email, create", at, l)
			}
		}
		for _, d := range u.Domains {
			if d != strings.ToLower(d) || !strings.Contains(d, ".") || strings.ContainsAny(d, "@*/ ") {
				return fmt.Errorf("%s.domains: %q is not a domain in lower case, such as example.com", at, d)
			}
		}
		names[u.Name], issuers[u.Issuer] = true, true
	}
	return nil
}

// secret reads the file that holds our secret at the provider.
func (u *UpstreamConfig) secret(path func(string) string) (string, error) {
	if u.ClientSecretFile == "" {
		return "", nil
	}
	raw, err := os.ReadFile(path(u.ClientSecretFile))
	if err != nil {
		return "", fmt.Errorf("upstream %s: client_secret_file: %w", u.Name, err)
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return "", fmt.Errorf("upstream %s: client_secret_file: %s holds nothing", u.Name, u.ClientSecretFile)
	}
	return line, nil
}

// upstreams builds the providers.
func (s *Server) upstreams() ([]login.Upstream, error) {
	var out []login.Upstream
	for _, u := range s.cfg.Upstream {
		secret, err := u.secret(s.cfg.path)
		if err != nil {
			return nil, err
		}
		egress, err := s.upstreamEgress(&u)
		if err != nil {
			return nil, err
		}
		p, err := upstream.New(upstream.Config{
			Name: u.Name, Issuer: u.Issuer, ClientID: u.ClientID, Secret: secret, Scopes: u.Scopes,
			RedirectURI: s.edge.URL("/login/callback/" + u.Name), EmailsVerified: u.EmailsVerified, Egress: egress, Now: s.opts.Now,
		})
		if err != nil {
			return nil, err
		}
		title := u.Title
		if title == "" {
			title = u.Name
		}
		out = append(out, login.Upstream{Provider: p, Title: title, Link: u.Link, Domains: u.Domains, ACR: u.ACR})
	}
	return out, nil
}

// upstreamEgress is the way to a provider: guarded like every other, on its own
// port too, and to inner addresses only where the operator says so (CN-17).
func (s *Server) upstreamEgress(u *UpstreamConfig) (*safehttp.Fetcher, error) {
	rules := s.egressRules()
	rules.AnyPrivate, rules.Private = u.AllowPrivate, nil
	if issuer, err := url.Parse(u.Issuer); err == nil {
		if port, err := strconv.ParseUint(issuer.Port(), 10, 16); err == nil && port > 0 {
			rules.Ports = append(slices.Clone(rules.Ports), uint16(port))
		}
	}
	return safehttp.New(rules)
}
