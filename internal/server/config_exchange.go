package server

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/internal/issuers"
	"github.com/bonafide-id/bonafide/internal/policy"
	"github.com/bonafide-id/bonafide/internal/store"
	"github.com/bonafide-id/bonafide/internal/token"
	"github.com/bonafide-id/bonafide/oauth"
)

// grantTypes are the grant types that work under the configuration: what a
// document may name here, and what the metadata lists (META-10).
func (c *Config) grantTypes() []string {
	t := token.Config{IDJAG: make([]token.TrustedIssuer, len(c.IDJAG.Issuers)), Exchange: c.Exchange.rules()}
	if c.Device.Enabled {
		t.Devices = new(store.Store) // any: only whether there is one counts here
	}
	return t.GrantTypes()
}

// IDJAGConfig is about identity assertions (ID-JAG): an identity provider vouches
// for a person, and a client gets a token without a sign-in here.
type IDJAGConfig struct {
	// Issuers are the identity providers that are believed. Without one the grant
	// is not offered.
	Issuers []IDJAGIssuerConfig `yaml:"issuers"`
}

// IDJAGIssuerConfig is one identity provider; give one of JWKSURI and JWKSFile.
type IDJAGIssuerConfig struct {
	Issuer   string `yaml:"issuer"`
	JWKSURI  string `yaml:"jwks_uri"`
	JWKSFile string `yaml:"jwks_file"`
	// Tenants are those that are accepted. Without them an assertion that names a
	// tenant is refused: others share the issuer.
	Tenants []string `yaml:"tenants"`
	// Link says how a person who is not linked yet is found: identity (not at
	// all, the default), email or create.
	Link string `yaml:"link"`
	// EmailsVerified makes an address count as verified of which the issuer does
	// not say whether it is.
	EmailsVerified bool `yaml:"emails_verified"`
	// Life is the longest that an assertion may be valid.
	Life time.Duration `yaml:"life"`
}

// longestAssertion is the most that id_jag.issuers[].life can be: until it
// expires, each assertion that was used has to be remembered.
const longestAssertion = time.Hour

func (c IDJAGConfig) check() error {
	seen := map[string]bool{}
	for n, i := range c.Issuers {
		at := fmt.Sprintf("id_jag.issuers[%d]", n)
		links := []string{"", string(token.LinkIdentity), string(token.LinkEmail), string(token.LinkCreate)}
		switch {
		case i.Issuer == "":
			return fmt.Errorf("%s: give its issuer, as it stands in iss", at)
		case !strings.HasPrefix(i.Issuer, "https://"):
			return fmt.Errorf("%s.issuer: %s must be an https URL", at, i.Issuer)
		case seen[i.Issuer]:
			return fmt.Errorf("%s: %s stands twice", at, i.Issuer)
		case (i.JWKSURI == "") == (i.JWKSFile == ""):
			return fmt.Errorf("%s: give one of jwks_uri and jwks_file", at)
		case i.JWKSURI != "" && !strings.HasPrefix(i.JWKSURI, "https://"):
			return fmt.Errorf("%s.jwks_uri: %s must be https", at, i.JWKSURI)
		case slices.Contains(i.Tenants, ""):
			return fmt.Errorf("%s.tenants: one of them is empty", at)
		case !slices.Contains(links, i.Link):
			return fmt.Errorf("%s.link: %q is not one of identity, email, create", at, i.Link)
		case i.Life < 0 || i.Life > longestAssertion:
			return fmt.Errorf("%s.life: at most %v", at, longestAssertion)
		}
		seen[i.Issuer] = true
	}
	return nil
}

// trusted returns the issuers as the token endpoint wants them. A file of keys is
// read now.
func (c IDJAGConfig) trusted(path func(string) string, client *http.Client, now func() time.Time) ([]token.TrustedIssuer, error) {
	var out []token.TrustedIssuer
	for _, i := range c.Issuers {
		keys, err := issuers.New(issuers.Config{URL: i.JWKSURI, File: path(i.JWKSFile), HTTP: client, Now: now})
		if err != nil {
			return nil, fmt.Errorf("id_jag: %s: %w", i.Issuer, err)
		}
		out = append(out, token.TrustedIssuer{
			ID: i.Issuer, Keys: keys, Tenants: i.Tenants, Link: token.Linking(i.Link), EmailsVerified: i.EmailsVerified, Life: i.Life,
		})
	}
	return out, nil
}

// ExchangeConfig says which clients may exchange tokens. Without a rule the grant
// is not offered.
type ExchangeConfig struct {
	Rules []ExchangeRuleConfig `yaml:"rules"`
}

// ExchangeRuleConfig lets one client exchange tokens for one resource for tokens
// for others.
type ExchangeRuleConfig struct {
	Client string   `yaml:"client"`
	From   string   `yaml:"from"`
	To     []string `yaml:"to"`
	// Scopes says what each scope of the presented token is worth at the target.
	// Without it a scope is worth the one of the same name.
	Scopes map[string][]string `yaml:"scopes"`
}

func (c ExchangeConfig) check(set *policy.Set) error {
	for n, r := range c.Rules {
		if err := r.check(set); err != nil {
			return fmt.Errorf("token_exchange.rules[%d]: %w", n, err)
		}
	}
	return nil
}

func (r ExchangeRuleConfig) check(set *policy.Set) error {
	if r.Client == "" || r.From == "" || len(r.To) == 0 {
		return errors.New("give client, from and to")
	}
	known := func(id string) (*policy.Resource, error) {
		if res, ok := set.Resource(id); ok && res.ID == id {
			return res, nil
		}
		return nil, fmt.Errorf("resource %s is not among the resources", id)
	}
	from, err := known(r.From)
	if err != nil {
		return err
	}
	var there oauth.Scopes
	for _, id := range r.To {
		to, err := known(id)
		if err != nil {
			return err
		}
		there = there.Or(to.ScopeNames())
	}
	for held, worth := range r.Scopes {
		if !from.ScopeNames().Has(held) {
			return fmt.Errorf("scopes: %s has no scope %s", r.From, held)
		}
		for _, s := range worth {
			if !there.Has(s) {
				return fmt.Errorf("scopes: none of the targets has a scope %s", s)
			}
		}
	}
	return nil
}

func (c ExchangeConfig) rules() []token.ExchangeRule {
	var out []token.ExchangeRule
	for _, r := range c.Rules {
		rule := token.ExchangeRule{Client: r.Client, From: r.From, To: r.To}
		if r.Scopes != nil {
			rule.Scopes = map[string]oauth.Scopes{}
		}
		for held, worth := range r.Scopes {
			rule.Scopes[held] = worth
		}
		out = append(out, rule)
	}
	return out
}
