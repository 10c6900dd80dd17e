package web

import (
	"math"
	"regexp"
	"strconv"
	"testing"
)

// TestContrast reads the custom properties of both schemes and computes the
// contrast of each pair that the stylesheet uses (WCAG 2.2, 1.4.3 and 1.4.6).
func TestContrast(t *testing.T) {
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllSubmatch(stylesheet, -1)
	if len(schemes) != 2 {
		t.Fatalf("%d colour schemes, want light and dark", len(schemes))
	}
	for i, scheme := range []string{"light", "dark"} {
		colour := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([\w-]+):\s*#(\w{6})`).FindAllSubmatch(schemes[i][1], -1) {
			colour[string(m[1])] = luminance(t, string(m[2]))
		}
		for _, tt := range []struct {
			ink, ground string
			least       float64
		}{
			{"ink", "sheet", 7}, {"ink", "paper", 7}, {"ink", "well", 7}, // the host: AAA
			{"ink", "look-well", 7}, {"ink", "stop-well", 7}, {"ink", "proven-well", 7},
			{"quiet", "sheet", 4.5}, {"quiet", "paper", 4.5}, {"quiet", "well", 4.5},
			{"brand", "sheet", 4.5}, {"brand-deep", "sheet", 4.5}, {"on-brand", "brand", 4.5}, {"on-brand", "brand-deep", 4.5},
			{"proven", "sheet", 4.5}, {"look", "sheet", 4.5}, {"stop", "sheet", 4.5},
			{"proven", "proven-well", 4.5}, {"look", "look-well", 4.5}, {"stop", "stop-well", 4.5},
			{"edge", "sheet", 3}, {"focus", "sheet", 3}, {"focus", "paper", 3}, // borders of controls, focus rings
		} {
			a, aok := colour[tt.ink]
			b, bok := colour[tt.ground]
			if !aok || !bok {
				t.Fatalf("%s: no colour --%s or --%s", scheme, tt.ink, tt.ground)
			}
			if got := (max(a, b) + 0.05) / (min(a, b) + 0.05); got < tt.least {
				t.Errorf("%s: --%s on --%s has %.2f, want %.1f", scheme, tt.ink, tt.ground, got, tt.least)
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	linear := func(shift int) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(16) + 0.7152*linear(8) + 0.0722*linear(0)
}

// TestMotion: whatever changes on a page fades, and nothing moves.
func TestMotion(t *testing.T) {
	for _, m := range regexp.MustCompile(`(?m)transition: ([^;]+);`).FindAllSubmatch(stylesheet, -1) {
		if got := string(m[1]); got != "none !important" && !regexp.MustCompile(`^(([\w-]+-color|opacity) 120ms(, )?)+$`).MatchString(got) {
			t.Errorf("transition: %s", got)
		}
	}
	if regexp.MustCompile(`@keyframes`).Match(stylesheet) {
		t.Error("there is an animation")
	}
}
