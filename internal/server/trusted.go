package server

import (
	"fmt"
	"net/http"

	"github.com/bonafide-id/bonafide/internal/safehttp"
)

// trusted returns an HTTP client for servers that the operator named in the
// configuration, such as the keys of an attester. Their addresses are not judged.
func (s *Server) trusted() (*http.Client, error) {
	rc, err := s.cfg.Resolver()
	if err != nil {
		return nil, fmt.Errorf("client for trusted servers: %w", err)
	}
	c := safehttp.TrustedConfig{RootCAs: rc.Egress.RootCAs}
	if o := s.opts.Egress; o != nil {
		c.Lookup, c.Dial, c.RootCAs = o.Lookup, o.Dial, o.RootCAs
	}
	return safehttp.Trusted(c), nil
}
