package server

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"os"

	"github.com/bonafide-id/bonafide/cimd"
)

// Resolver turns the cimd section of the configuration into the library's.
func (c *Config) Resolver() (cimd.Config, error) {
	d := c.CIMD
	egress := cimd.Egress{Ports: c.ports(), Deny: append(ownAddress(c.Listen), d.Egress.Deny...), Private: d.Egress.PrivateURLs, Loopback: c.Dev}
	if d.Egress.Proxy != "" {
		u, err := url.Parse(d.Egress.Proxy)
		if err != nil || u.Host == "" {
			return cimd.Config{}, fmt.Errorf("cimd.egress.proxy: %s is not a URL", d.Egress.Proxy)
		}
		egress.Proxy = u
	}
	if d.Egress.CAFile != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			return cimd.Config{}, err
		}
		pem, err := os.ReadFile(c.path(d.Egress.CAFile))
		if err != nil {
			return cimd.Config{}, fmt.Errorf("cimd.egress.ca_file: %w", err)
		}
		if !pool.AppendCertsFromPEM(pem) {
			return cimd.Config{}, fmt.Errorf("cimd.egress.ca_file: %s holds no certificate", d.Egress.CAFile)
		}
		egress.RootCAs = pool
	}
	lastKnownGood := d.Cache.LastKnownGood
	if lastKnownGood == 0 {
		lastKnownGood = -1 // never; nothing would mean the default
	}
	return cimd.Config{
		Profile:   cimd.Profile(d.Profile),
		Supported: cimd.Supported{AuthMethods: c.clientMethods(), GrantTypes: c.grantTypes()},
		URL:       c.urlRules(),
		Egress:    egress,
		Limits: cimd.Limits{
			DocumentBytes: d.DocumentBytes, JWKSBytes: d.JWKSBytes, LogoBytes: d.LogoBytes, Timeout: d.Timeout,
			Freshness:     cimd.FreshnessLimits{Floor: d.Cache.Floor, Ceiling: d.Cache.Ceiling, Default: d.Cache.Default},
			LastKnownGood: lastKnownGood,
		},
	}, nil
}

func (c *Config) ports() []uint16 { return append([]uint16{443}, c.CIMD.Ports...) }

// urlRules says which URLs can be a client_id here. Our own identifiers and those
// of the resources cannot.
func (c *Config) urlRules() cimd.URLRules {
	reserved := []string{c.Issuer}
	for _, r := range c.Resource {
		reserved = append(append(reserved, r.ID), r.Aliases...)
	}
	return cimd.URLRules{
		AllowQuery: c.CIMD.AllowQuery, AllowRootPath: c.CIMD.AllowRootPath, AllowTestNames: c.CIMD.AllowTestNames,
		Loopback: c.Dev, Ports: c.ports(), Private: c.CIMD.Egress.PrivateURLs, Reserved: reserved,
	}
}

// ownAddress returns the address of the listener where it names one, so that a
// document cannot make the server call itself (SD-33). Loopback is refused anyway.
func ownAddress(listen string) []netip.Prefix {
	at, err := netip.ParseAddrPort(listen)
	if err != nil || at.Addr().IsUnspecified() || at.Addr().IsLoopback() {
		return nil
	}
	a := at.Addr().Unmap().WithZone("")
	return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
}
