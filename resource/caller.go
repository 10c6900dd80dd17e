package resource

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
)

var errForeign = errors.New("requests from there are not accepted")

// checkCaller decides on where a request comes from, before anything is read
// from it. It answers a good preflight request itself and reports that.
func (g *Guard) checkCaller(w http.ResponseWriter, r *http.Request) (preflight bool, err error) {
	if !g.goodHost(r) {
		return false, errForeign
	}
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return false, nil
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	if len(origins) > 1 || !g.goodOrigin(origins[0]) {
		return false, errForeign
	}
	h.Set("Access-Control-Allow-Origin", origins[0])
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, DPoP-Nonce, Mcp-Session-Id, Mcp-Protocol-Version")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false, nil
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
	h.Set("Access-Control-Allow-Headers", requestedHeaders(r))
	h.Set("Access-Control-Max-Age", "3600")
	w.WriteHeader(http.StatusNoContent)
	return true, nil
}

func (g *Guard) goodOrigin(origin string) bool {
	return origin == g.origin || slices.Contains(g.cfg.Origins, origin) || slices.Contains(g.cfg.Origins, "*")
}

// goodHost guards a listener on this computer against names that were rebound to
// it. On any other address the Host header decides nothing.
func (g *Guard) goodHost(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return true
	}
	ip, _, err := net.SplitHostPort(local.String())
	if err != nil || !loopbackHost(ip) {
		return true
	}
	host := strings.ToLower(r.Host)
	if name, _, err := net.SplitHostPort(host); err == nil && loopbackHost(name) || loopbackHost(host) {
		return true
	}
	return host == g.host || slices.Contains(g.cfg.Hosts, host) || slices.Contains(g.cfg.Hosts, "*")
}

// requestedHeaders grants the headers that the page asks for by name: MCP has an
// open set of them (Mcp-Param-*), and "*" does not cover Authorization.
func requestedHeaders(r *http.Request) string {
	asked := r.Header.Get("Access-Control-Request-Headers")
	for name := range strings.SplitSeq(asked, ",") {
		if !schemeName(strings.TrimSpace(name)) {
			return "Authorization, Content-Type"
		}
	}
	return asked
}
