package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/bonafide-id/bonafide/internal/store/pgtest"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bonafide": func() { os.Exit(run()) }})
}

// TestScripts runs the command line as people do: each file in testdata is a
// session in a shell.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"port": freePort, "get": get, "waitfor": waitFor, "cert": certificate, "tlsname": tlsName, "send": send,
			// postgres puts the address of a fresh database into an environment variable: postgres NAME.
			"postgres": func(ts *testscript.TestScript, _ bool, args []string) {
				address, err := pgtest.Shared(t).Copy(t.Context(), "empty", func(string) error { return nil })
				ts.Check(err)
				ts.Setenv(args[0], address)
			},
		},
	})
}

// freePort puts a free loopback port into an environment variable: port NAME.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, err := net.SplitHostPort(ln.Addr().String())
	ts.Check(err)
	ts.Check(ln.Close())
	ts.Setenv(args[0], port)
}

// get prints the status and the body behind a URL, and waits for a server that
// is still starting: get URL. With "!" it expects that nobody answers.
func get(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		if status, _, err := fetch(args[0]); err == nil {
			ts.Fatalf("%s answered %d", args[0], status)
		}
		return
	}
	eventually(ts, func() error {
		status, body, err := fetch(args[0])
		if err == nil {
			fmt.Fprintf(ts.Stdout(), "%d %s\n", status, body)
		}
		return err
	})
}

// waitFor waits until the body behind a URL matches: waitfor URL PATTERN.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[1])
	eventually(ts, func() error {
		_, body, err := fetch(args[0])
		if err == nil && !want.MatchString(body) {
			err = fmt.Errorf("%s does not match %s", body, args[1])
		}
		return err
	})
}

// tlsName waits until the server presents the certificate of a name: tlsname
// ADDRESS NAME.
func tlsName(ts *testscript.TestScript, _ bool, args []string) {
	eventually(ts, func() error {
		var got string
		conn, err := tls.Dial("tcp", args[0], &tls.Config{
			InsecureSkipVerify: true, // the certificate itself is looked at
			VerifyConnection:   func(s tls.ConnectionState) error { got = s.PeerCertificates[0].Subject.CommonName; return nil },
		})
		if err != nil {
			return err
		}
		conn.Close()
		if got != args[1] {
			return fmt.Errorf("the certificate is that of %s", got)
		}
		return nil
	})
}

// send sends a signal to what runs in the background: send HUP.
func send(ts *testscript.TestScript, _ bool, args []string) {
	sig, ok := map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}[args[0]]
	if !ok {
		ts.Fatalf("unknown signal %s", args[0])
	}
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(sig))
	}
}

func fetch(url string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// eventually tries until it works, for at most 30 seconds.
func eventually(ts *testscript.TestScript, try func() error) {
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			ts.Fatalf("%v", err)
		case <-tick.C:
		}
	}
}

// certificate writes a self-signed certificate: cert NAME writes NAME.crt and NAME.key.
func certificate(ts *testscript.TestScript, _ bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: args[0]},
		DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	ts.Check(err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600))
}

func TestPrintableStripsWhatSteersATerminal(t *testing.T) {
	t.Run("attack AD-07: escape sequences, line separators and direction marks", func(t *testing.T) {
		for _, in := range []string{"a\x1b[2Jb", "a\u2028b", "a\u202eb", "a\nb", "a\u0085b"} {
			got := printable(in)
			for _, r := range got {
				if r != 'a' && r != 'b' && r != '\uFFFD' && r != '[' && r != '2' && r != 'J' {
					t.Errorf("%q became %q", in, got)
				}
			}
		}
		if n := len([]rune(printable(string(make([]byte, 10000))))); n > 201 {
			t.Errorf("%d runes", n)
		}
	})
}
