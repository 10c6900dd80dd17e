package demo_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/demo"
	"github.com/chromedp/chromedp"
)

// screen collects what the demo prints and hands out the addresses that it asks
// John to open.
type screen struct {
	mu        sync.Mutex // guards text
	text      strings.Builder
	addresses chan string
}

var invitation = regexp.MustCompile(`http://localhost:\d+/authorize\?\S+`)

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	for _, a := range invitation.FindAllString(string(p), -1) {
		s.addresses <- a
	}
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// TestTheDemoInABrowser does what the README tells people to do after make demo:
// open the address, sign in, agree, and agree to what is new.
func TestTheDemoInABrowser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("there is no chromium on this machine; scripts/need.sh chromium installs it")
	}
	out := &screen{addresses: make(chan string, 4)}
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	go func() { ended <- demo.Run(ctx, demo.Options{Out: out}) }()

	browser, stop := chromedp.NewContext(ctx, chromedp.WithAllocatorOptions(
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true)))
	defer stop()
	open := func() {
		t.Helper()
		select {
		case a := <-out.addresses:
			if err := chromedp.Do(browser, chromedp.Navigate(a)); err != nil {
				t.Fatal(err)
			}
		case err := <-ended:
			t.Fatalf("the demo ended: %v\n%s", err, out)
		}
	}
	press := func(selector string) {
		t.Helper()
		if _, err := chromedp.RunResponse(browser, chromedp.Click(chromedp.CSS(selector))); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	open()
	password := regexp.MustCompile(`password +(\S+)`).FindStringSubmatch(out.String())
	if password == nil {
		t.Fatalf("no password is printed\n%s", out)
	}
	if err := chromedp.Do(browser, chromedp.SendKeys(chromedp.CSS(`[name=username]`), "john"), chromedp.SendKeys(chromedp.CSS(`[name=password]`), password[1])); err != nil {
		t.Fatal(err)
	}
	press(`form button[type=submit]`)
	shoot(t, browser, "demo consent")
	press(`button[name=decision][value=allow]`)
	shoot(t, browser, "demo arrived")
	open() // already signed in: straight to what is new
	shoot(t, browser, "demo step-up")
	press(`button[name=decision][value=allow]`)
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("CLI-18, AUTHZ-27, CONS-04 the last line is demo: ok", func(t *testing.T) {
		if !strings.HasSuffix(out.String(), "demo: ok\n") {
			t.Error(out)
		}
	})
}

// shoot keeps a picture when BONAFIDE_SHOTS names a folder, for people to look at.
func shoot(t *testing.T, browser context.Context, name string) {
	t.Helper()
	dir := os.Getenv("BONAFIDE_SHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(browser, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}
