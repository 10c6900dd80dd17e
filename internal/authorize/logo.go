package authorize

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/internal/web"
	"github.com/bonafide-id/bonafide/oauth"
)

const (
	logoLife = time.Hour              // how long the address of a logo on a page works
	logoWait = 300 * time.Millisecond // how long a page waits for a logo that is not in the cache
)

// logoURL returns where the page finds the client's logo, or "" if it shows
// none: only clients that an operator vouched for get one (CONS-08), and only
// when the picture is there, so that nobody looks at a broken one. The address is
// sealed: nobody can use us to fetch the picture of their choice.
func (h *Handler) logoURL(ctx context.Context, a *attempt) string {
	if a.client.Doc == nil || !strings.HasPrefix(a.client.Doc.LogoURI, "https://") || !vouched(a.client) {
		return ""
	}
	ctx, stop := context.WithTimeout(ctx, logoWait)
	defer stop()
	if _, err := h.Directory.Logo(ctx, a.client.ID); err != nil {
		return ""
	}
	sealed, err := h.Sealer.Seal(purposeLogo, h.Now().Add(logoLife), a.client.ID)
	if err != nil {
		return ""
	}
	return h.Edge.Path(pathLogo) + "?ref=" + url.QueryEscape(sealed)
}

// logo serves a client's logo from our own origin, re-encoded (CONS-07). When
// there is none for whatever reason the page is complete without it.
func (h *Handler) logo(w http.ResponseWriter, r *http.Request) error {
	p, err := web.ParseQuery(r)
	if err != nil {
		return err
	}
	var id string
	if err := h.Sealer.Open(purposeLogo, p.Form["ref"], h.Now(), &id); err != nil {
		return noLogo(err)
	}
	user, err := h.SignIn.Current(r)
	if err != nil {
		return err
	}
	if user == nil {
		return noLogo(nil)
	}
	png, err := h.Directory.Logo(cimd.WithSource(r.Context(), source(r.Context(), user)), id)
	if err != nil {
		return noLogo(err)
	}
	head := w.Header()
	head.Set("Content-Type", "image/png")
	head.Set("Content-Length", strconv.Itoa(len(png)))
	head.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
	head.Set("Content-Disposition", "inline; filename=logo.png")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	head.Set("Cache-Control", "private, max-age=300")
	head.Del("Pragma")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(png) // the browser went away: there is nobody to tell
	return nil
}

func noLogo(cause error) error {
	return web.Refuse(http.StatusNotFound, oauth.Refuse(oauth.InvalidRequest, "there is no logo").Under("CONS-07").Because(cause))
}
