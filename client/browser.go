package client

import (
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"runtime"
	"strings"
)

// checkOpen accepts what may be handed to a browser: an https URL, or an http one
// on this computer. An authorization server must not be able to start a program
// with it (CLI-19).
func checkOpen(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return errors.New("it is not an absolute URL")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopbackName(u.Hostname())) {
		return fmt.Errorf("the scheme %q is not opened", u.Scheme)
	}
	if u.User != nil {
		return errors.New("it holds user information")
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'`\\<>|^{}", r) }) {
		return errors.New("it holds characters that do not belong into a URL")
	}
	return nil
}

// OpenBrowser starts the system's browser with an https URL, or an http one on
// this computer. The URL is one argument of one program; no shell reads it. It
// returns an error if the program cannot be started; whether a browser came up is
// not known.
func OpenBrowser(address string) error {
	if err := checkOpen(address); err != nil {
		return fmt.Errorf("open browser: %w", err)
	}
	argv := browserCommand(runtime.GOOS, address)
	cmd := exec.Command(argv[0], argv[1:]...)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("open browser: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	return nil
}

func browserCommand(system, address string) []string {
	switch system {
	case "darwin":
		return []string{"/usr/bin/open", address}
	case "windows":
		return []string{"rundll32", "url.dll,FileProtocolHandler", address}
	}
	return []string{"xdg-open", address}
}
