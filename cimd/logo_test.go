package cimd_test

import (
	"bytes"
	"encoding/base64"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/cimd"
	"github.com/bonafide-id/bonafide/cimd/cimdtest"
)

func picture(w, h int) image.Image {
	img := image.NewPaletted(image.Rect(0, 0, w, h), color.Palette{color.White, color.RGBA{200, 30, 30, 255}})
	for i := range img.Pix {
		img.Pix[i] = uint8(i / 3 % 2)
	}
	return img
}

func encode(t *testing.T, format string, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch format {
	case "png":
		err = png.Encode(&b, img)
	case "jpeg":
		err = jpeg.Encode(&b, img, nil)
	case "gif":
		err = gif.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A WebP image of one pixel.
const tinyWebP = "UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAwA0JaQAA3AA/vuUAAA="

// hugePNG is a small file that claims to be 20,000 by 20,000 pixels.
func hugePNG(t *testing.T) []byte {
	b := encode(t, "png", picture(8, 8))
	copy(b[16:24], []byte{0, 0, 0x4e, 0x20, 0, 0, 0x4e, 0x20})
	sum := crc32.ChecksumIEEE(b[12:29])
	copy(b[29:33], []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
	return b
}

func TestLogo(t *testing.T) {
	webp, err := base64.StdEncoding.DecodeString(tinyWebP)
	if err != nil {
		t.Fatal(err)
	}
	const svg = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
	polyglot := append(encode(t, "gif", picture(4, 4)), []byte("<html><script>alert(1)</script>")...)
	rows := []struct {
		name  string
		media string
		body  []byte
		w, h  int // of what comes out; 0 means refused
	}{
		{"CONS-07 a PNG", "image/png", encode(t, "png", picture(64, 32)), 64, 32},
		{"CONS-07 a JPEG is made smaller", "image/jpeg", encode(t, "jpeg", picture(1000, 500)), 128, 64},
		{"CONS-07 a GIF", "image/gif", encode(t, "gif", picture(16, 16)), 16, 16},
		{"CONS-07 a WebP", "image/webp", webp, 1, 1},
		{"CONS-07 a narrow image keeps a pixel", "image/png", encode(t, "png", picture(1, 1024)), 1, 128},
		{"attack CN-15: polyglot of GIF and HTML is drawn anew", "image/gif", polyglot, 4, 4},
		{"attack CN-15: SVG", "image/svg+xml", []byte(svg), 0, 0},
		{"attack CN-15: SVG that calls itself PNG", "image/png", []byte(svg), 0, 0},
		{"attack CN-15: PNG that calls itself HTML", "text/html", encode(t, "png", picture(4, 4)), 0, 0},
		{"attack CN-15: 20,000 by 20,000 pixels in a small file", "image/png", hugePNG(t), 0, 0},
		{"attack CN-15: one pixel too wide", "image/png", encode(t, "png", picture(1025, 2)), 0, 0},
		{"attack CN-15: more bytes than the limit", "image/png", append(encode(t, "png", picture(4, 4)), make([]byte, 256<<10)...), 0, 0},
		{"a cut-off PNG", "image/png", encode(t, "png", picture(64, 64))[:60], 0, 0},
		{"a PNG header alone", "image/png", []byte("\x89PNG\r\n\x1a\n"), 0, 0},
		{"nothing", "image/png", nil, 0, 0},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			w, doc := pictured(t, "https://good.test/logo")
			w.host.Serve("/logo", cimdtest.Response{Header: http.Header{"Content-Type": {row.media}}, Body: row.body})
			out, err := w.Logo(t.Context(), doc)
			if row.w == 0 {
				refusal(t, err)
				if _, err := w.Resolve(t.Context(), doc.ID); err != nil {
					t.Errorf("the bad logo blocks the client: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			img, err := png.Decode(bytes.NewReader(out))
			if err != nil || img.Bounds().Dx() != row.w || img.Bounds().Dy() != row.h {
				t.Errorf("came out as %v, %v", img, err)
			}
			if strings.Contains(string(out), "script") {
				t.Error("bytes of the original survive")
			}
		})
	}
	t.Run("CACHE-20 a logo is kept as long as its document", func(t *testing.T) {
		w, doc := pictured(t, "https://good.test/logo")
		w.host.Serve("/logo", cimdtest.Response{
			Header: http.Header{"Content-Type": {"image/png"}, "Cache-Control": {"no-store"}, "Etag": {`"1"`}},
			Body:   encode(t, "png", picture(8, 8)),
		})
		first, err := w.Logo(t.Context(), doc)
		if err != nil {
			t.Fatal(err)
		}
		w.pass(doc.Freshness.Lifetime - time.Second)
		if _, err := w.Logo(t.Context(), doc); err != nil || w.host.Count("/logo") != 1 {
			t.Errorf("%d fetches, %v", w.host.Count("/logo"), err)
		}
		w.pass(2 * time.Second)
		w.host.Serve("/logo", cimdtest.Response{Status: 304})
		again, err := w.Logo(t.Context(), doc)
		if err != nil || !bytes.Equal(first, again) || w.host.Count("/logo") != 2 {
			t.Errorf("%d fetches, %v", w.host.Count("/logo"), err)
		}
		// The document has expired: the floor counts.
		w.pass(30 * time.Second)
		if _, err := w.Logo(t.Context(), doc); err != nil || w.host.Count("/logo") != 2 {
			t.Errorf("%d fetches, %v", w.host.Count("/logo"), err)
		}
		w.host.Down(true)
		w.pass(time.Minute)
		if _, err := w.Logo(t.Context(), doc); err != nil {
			t.Errorf("the last good logo is not used: %v", err)
		}
		w.host.Down(false)
		w.host.Remove("/logo")
		w.pass(time.Minute)
		_, err = w.Logo(t.Context(), doc)
		wantKind(t, err, cimd.KindGone)
	})
	t.Run("CONS-09, FETCH-08 a data: logo is refused, and so is http", func(t *testing.T) {
		w, doc := pictured(t, "https://good.test/logo")
		for _, uri := range []string{"", "data:image/png;base64,AAAA", "http://good.test/logo", "javascript:alert(1)"} {
			bad := *doc
			bad.LogoURI = uri
			_, err := w.Logo(t.Context(), &bad)
			refusal(t, err)
		}
		if n := len(w.net.Dials()); n != 1 {
			t.Errorf("%d connections, want the one for the document", n)
		}
	})
	t.Run("attack SD-34, FETCH-06: a logo on an inner address is not dialled and blocks nothing", func(t *testing.T) {
		w, doc := pictured(t, "https://evil.test/l.png")
		w.net.DNS("evil.test", netip.MustParseAddr("10.0.0.1"))
		_, err := w.Logo(t.Context(), doc)
		wantKind(t, err, cimd.KindFetch)
		if len(w.net.Strays()) != 0 {
			t.Errorf("dialled %v", w.net.Strays())
		}
		if _, err := w.Resolve(t.Context(), doc.ID); err != nil {
			t.Error(err)
		}
	})
}

// pictured starts a world with a client that has a logo.
func pictured(t *testing.T, uri string) (*world, *cimd.Document) {
	t.Helper()
	w := start(t, nil)
	doc, err := w.Resolve(t.Context(), cimdtest.ID(w.host.ServeClient("/c.json", nil)))
	if err != nil {
		t.Fatal(err)
	}
	with := *doc // whatever the document rules say about logo hosts
	with.LogoURI = uri
	return w, &with
}
