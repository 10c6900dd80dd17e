package web

import (
	"crypto/sha256"
	_ "embed" // the stylesheet and the seal
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

//go:embed assets/bonafide.css
var stylesheet []byte

//go:embed assets/seal.svg
var seal []byte

const maxLogo = 256 << 10

// asset is a static file: its path holds a hash of its content, so that caches
// may keep it for ever.
type asset struct {
	name, path, mime string
	body             []byte
}

func newAsset(name, ext, mime string, body []byte) asset {
	sum := sha256.Sum256(body)
	hash := base64.RawURLEncoding.EncodeToString(sum[:9])
	base := strings.TrimSuffix(name, ext)
	return asset{name, "/assets/" + base + "." + hash + ext, mime, body}
}

// loadAssets returns the stylesheet, the seal and the operator's logo, if there
// is one.
func loadAssets(logo string) ([]asset, error) {
	all := []asset{
		newAsset("bonafide.css", ".css", "text/css; charset=utf-8", stylesheet),
		newAsset("seal.svg", ".svg", "image/svg+xml", seal),
	}
	if logo == "" {
		return all, nil
	}
	ext := strings.ToLower(filepath.Ext(logo))
	mime := map[string]string{".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".svg": "image/svg+xml"}[ext]
	if mime == "" {
		return nil, fmt.Errorf("brand logo %s: not a .png, .jpg, .webp or .svg file", logo)
	}
	body, err := readLogo(logo)
	if err != nil {
		return nil, fmt.Errorf("brand logo: %w", err)
	}
	return append(all, newAsset("brand", ext, mime, body)), nil
}

func readLogo(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	body, err := io.ReadAll(io.LimitReader(f, maxLogo+1))
	if err == nil && len(body) > maxLogo {
		err = errors.New("the file is larger than 256 KiB")
	}
	return body, err
}

// assetPath returns the path of a static file below the issuer's, or "" if we
// have no such file.
func (e *Edge) assetPath(name string) string {
	for _, a := range e.assets {
		if a.name == name {
			return e.Path(a.path)
		}
	}
	return ""
}

// Routes returns the static files: the stylesheet, the seal, the operator's logo.
func (e *Edge) Routes() []Route {
	out := make([]Route, 0, len(e.assets))
	for _, a := range e.assets {
		out = append(out, Route{e.Path(a.path), e.wrap(e.baseHeaders, e.failPage, Only(serveAsset(a), http.MethodGet, http.MethodHead))})
	}
	return out
}

func serveAsset(a asset) Handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		h := w.Header()
		h.Set("Content-Type", a.mime)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		// An operator's SVG opened by itself is a document: no script may run in it.
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write(a.body) // the browser went away: there is nobody to tell
		return nil
	}
}
