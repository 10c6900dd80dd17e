package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/bonafide-id/bonafide/internal/browse"
)

// startPerson answers at a loopback address: whoever asks with ?url= has the
// person open it, and is told where the browser was sent. With code= the person
// types that when asked for one; with follow=1 the browser goes on to where it
// was sent, as browsers do.
func (h *house) startPerson(ctx context.Context) error {
	ln, err := listen(ctx)
	if err != nil {
		return err
	}
	h.person = "http://" + ln.Addr().String() + "/"
	serve(ctx, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		to, err := h.answer(r.Context(), q.Get("url"), q.Get("code"))
		if err == nil && q.Get("follow") != "" {
			err = open(r.Context(), to.String())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		fmt.Fprint(w, to)
	}))
	return h.standIn()
}

// standIn writes the program that clients start as the browser of this system.
// It goes on by itself, as a browser does.
func (h *house) standIn() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir := filepath.Join(h.dir, "bin")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	h.browser = filepath.Join(dir, "browser")
	script := fmt.Sprintf("#!/bin/sh\n%q open %q \"$1\" </dev/null >/dev/null 2>&1 &\n", self, h.person)
	return os.WriteFile(h.browser, []byte(script), 0o700)
}

// browserEnv makes a client of Node or Python open the stand-in, and keeps what
// it stores in a directory of its own.
func (h *house) browserEnv(home string) []string {
	return []string{
		"HOME=" + home, "XDG_CONFIG_HOME=" + home, "BROWSER=" + h.browser, "DISPLAY=", "WAYLAND_DISPLAY=",
		"PATH=" + filepath.Dir(h.browser) + string(os.PathListSeparator) + os.Getenv("PATH"),
		"SSL_CERT_FILE=" + h.ca.file,
	}
}

// openAs is this program as a browser.
func openAs(ctx context.Context, person, address string) error {
	return open(ctx, person+"?follow=1&url="+url.QueryEscape(address))
}

// open opens an address and says what was wrong with it.
func open(ctx context.Context, address string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	for end := time.Now().Add(10 * time.Second); errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(end); {
		select { // some listen a moment after they have opened the browser
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		resp, err = http.DefaultClient.Do(req)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err == nil && resp.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s answered %d: %s", req.URL.Host, resp.StatusCode, body)
	}
	return err
}

// agree opens an address in a browser without cookies, signs in through the real
// form, allows on the real consent page, and returns where the browser was sent.
// It does not open that: often nobody listens there.
func (h *house) agree(ctx context.Context, address string) (*url.URL, error) {
	return h.answer(ctx, address, "")
}

// connected is the page that sends a person back to the device.
const connected = "/device/done"

// answer is agree for a person who also types the code of a device.
func (h *house) answer(ctx context.Context, address, code string) (*url.URL, error) {
	issuer, err := url.Parse(h.issuer)
	if err != nil {
		return nil, err
	}
	if at, err := url.Parse(address); err == nil && code == "" {
		code = at.Query().Get("user_code") // it stands in the field then
	}
	b, err := browse.New(browse.Config{RootCAs: h.ca.pool(), Stops: func(u *url.URL) bool { return u.Host != issuer.Host }})
	if err != nil {
		return nil, err
	}
	page, err := b.From(ctx, address, "cross-site")
	for range 5 {
		switch {
		case err != nil:
			return nil, err
		case page.Left, page.URL.Path == connected && page.Status == http.StatusOK:
			return page.URL, nil
		case page.Status != http.StatusOK:
			return nil, fmt.Errorf("%s answered %d: %s", page.URL.Path, page.Status, page.Text())
		}
		form, err2 := h.fill(page, code)
		if err2 != nil {
			return nil, err2
		}
		page, err = b.Submit(ctx, form)
	}
	return nil, errors.New("the pages go round in circles")
}

// fill fills in whatever form a page has.
func (h *house) fill(page *browse.Page, code string) (*browse.Form, error) {
	if form, err := page.Form("password"); err == nil {
		return form.With("username", user).With("password", h.password), nil
	}
	if form, err := page.Form("user_code"); err == nil { // beside it stands a button for another account
		return form.With("user_code", code), nil
	}
	form, err := page.Form("decision")
	if err == nil && page.Has("started") { // the question whether the person began this
		form.With("started", "yes")
	}
	if err == nil {
		form.With("decision", "allow")
	}
	return form, err
}
