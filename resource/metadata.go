package resource

import (
	"encoding/json"
	"net/http"

	"github.com/bonafide-id/bonafide/internal/jose"
	"github.com/bonafide-id/bonafide/oauth"
)

const rootMetadataPath = "/.well-known/oauth-protected-resource"

// MetadataPath returns the path at which [Guard.MetadataHandler] belongs: the
// well-known name with the resource's path after it, at the root of the host
// (RFC 9728 section 3.1). For https://mcp.example/mcp that is
// /.well-known/oauth-protected-resource/mcp.
func (g *Guard) MetadataPath() string { return g.metadataPath }

// MetadataURL returns the full public address of the metadata.
func (g *Guard) MetadataURL() string { return g.metadataURL }

func (g *Guard) buildMetadata() error {
	m := oauth.ResourceMetadata{
		Resource:             g.cfg.Resource,
		AuthorizationServers: g.cfg.AuthorizationServers,
		ScopesSupported:      g.cfg.ScopesSupported,
		BearerMethods:        []string{"header"},
		ResourceName:         g.cfg.Name,
		ResourceDocs:         g.cfg.Documentation,
		ResourcePolicyURI:    g.cfg.Policy,
		DPoPSigningAlgs:      jose.Accepted,
		DPoPRequired:         g.cfg.DPoP.Required,
	}
	if m.ScopesSupported == nil {
		m.ScopesSupported = g.baseline
	}
	for what, page := range map[string]string{"documentation": m.ResourceDocs, "policy": m.ResourcePolicyURI} {
		if page == "" {
			continue
		}
		if _, err := checkURL(what, page); err != nil {
			return err
		}
	}
	var err error
	g.metadata, err = json.Marshal(m)
	return err
}

// MetadataHandler serves the resource's metadata to anyone: GET and HEAD, no
// credentials, readable by pages of every origin, cacheable for an hour.
func (g *Guard) MetadataHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "public, max-age=3600")
			h.Set("X-Content-Type-Options", "nosniff")
			_, _ = w.Write(g.metadata)
		case http.MethodOptions:
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "*")
			h.Set("Access-Control-Max-Age", "86400")
			w.WriteHeader(http.StatusNoContent)
		default:
			h.Set("Allow", "GET, HEAD, OPTIONS")
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
}

// Handler serves the metadata at its path and at the root well-known path, and
// guards every other request on the way to next. Use it where the resource has
// the host for itself.
func (g *Guard) Handler(next http.Handler) http.Handler {
	protected, metadata := g.Protect(next), g.MetadataHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == g.metadataPath || r.URL.Path == rootMetadataPath {
			metadata.ServeHTTP(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	})
}
