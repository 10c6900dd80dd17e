package cimd

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"strings"

	"golang.org/x/image/draw"
	"golang.org/x/image/webp"

	"github.com/bonafide-id/bonafide/internal/planted"
)

// maxLogoSide is the greatest width and height of a logo as it is handed out.
const maxLogoSide = 128

// Logo returns the client's logo as a PNG of at most 128 by 128 pixels that was
// drawn anew: nothing of the original file survives. It may be served from the
// server's own origin, with the type image/png. PNG, JPEG, GIF (its first frame)
// and WebP are accepted, SVG is not. The logo is kept as long as the document. An
// error is always a *Error and no reason to refuse the client (CONS-07).
func (r *Resolver) Logo(ctx context.Context, doc *Document) ([]byte, error) {
	t := target{kind: kindLogo, url: doc.LogoURI, id: doc.ID, until: doc.Freshness.Expires}
	if err := r.admit(ctx, t); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(t.url, "https://") && !r.cfg.Egress.Loopback || t.url == "" {
		return nil, &Error{Kind: KindDocument, Rule: "CONS-09", Hint: "the document has no logo_uri that is an https URL"}
	}
	if e := r.logos.get(t.key()); e != nil && e.usable(r.cfg.Now()) {
		return e.png, nil
	}
	e, err := r.obtain(ctx, t, wish{served: (*entry).usable})
	if err == nil {
		return e.png, nil
	}
	if old := r.standIn(ctx, t, err); old != nil {
		return old.png, nil
	}
	return nil, err
}

// decoder is an image format we read, told by its first bytes and never by what
// the host calls it.
type decoder struct {
	magic  string // '?' stands for any byte
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

var decoders = []decoder{
	{"\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode},
	{"\xff\xd8\xff", jpeg.DecodeConfig, decodeJPEG},
	{"GIF8?a", gif.DecodeConfig, gif.Decode},
	{"RIFF????WEBP", webp.DecodeConfig, webp.Decode},
}

// maxScans bounds the scans of a progressive JPEG. Each may cost a pass over the
// whole image for a dozen bytes; encoders write about ten.
const maxScans = 64

// decodeJPEG is jpeg.Decode for images with few scans. Within the coded data no
// 0xff stands before 0xda, so that each scan is counted, and perhaps more.
func decodeJPEG(r io.Reader) (image.Image, error) {
	body, err := io.ReadAll(r) // from memory
	if err != nil {
		return nil, err
	}
	if n := bytes.Count(body, []byte{0xff, 0xda}); n > maxScans {
		return nil, fmt.Errorf("jpeg: %d scans", n)
	}
	return jpeg.Decode(bytes.NewReader(body))
}

func (d decoder) fits(body []byte) bool {
	if len(body) < len(d.magic) {
		return false
	}
	for i := range len(d.magic) {
		if d.magic[i] != '?' && d.magic[i] != body[i] {
			return false
		}
	}
	return true
}

// redraw reads an image, after a look at its size alone, and writes it as a small
// PNG. Two at a time: an image within the limits takes up to 8 MiB.
func (r *Resolver) redraw(body []byte) ([]byte, *Error) {
	r.decode <- struct{}{}
	defer func() { <-r.decode }()
	for _, d := range decoders {
		if !d.fits(body) {
			continue
		}
		cfg, err := d.config(bytes.NewReader(body))
		if err != nil {
			return nil, logoError("the logo cannot be read as an image", err)
		}
		if most := r.cfg.Limits.LogoPixels; cfg.Width < 1 || cfg.Height < 1 || (cfg.Width > most || cfg.Height > most) && !planted.Weak("pixels") {
			return nil, logoError(fmt.Sprintf("the logo is larger than %d by %d pixels", most, most), nil)
		}
		img, err := d.decode(bytes.NewReader(body))
		if err != nil {
			return nil, logoError("the logo cannot be read as an image", err)
		}
		return shrink(img)
	}
	return nil, logoError("the logo must be a PNG, JPEG, GIF or WebP image", nil)
}

func shrink(img image.Image) ([]byte, *Error) {
	b := img.Bounds()
	w, h := b.Dx(), b.Dy()
	if side := max(w, h); side > maxLogoSide {
		w, h = max(1, w*maxLogoSide/side), max(1, h*maxLogoSide/side)
	}
	out := image.NewNRGBA(image.Rect(0, 0, w, h))
	draw.CatmullRom.Scale(out, out.Bounds(), img, b, draw.Src, nil)
	var buf bytes.Buffer
	if err := png.Encode(&buf, out); err != nil {
		return nil, logoError("the logo cannot be drawn", err)
	}
	return buf.Bytes(), nil
}

func logoError(hint string, err error) *Error {
	return &Error{Kind: KindDocument, Rule: "CONS-07", Hint: hint, Err: err}
}
