package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// push measures what it costs a client that holds a key to push its request ahead
// of the browser. A person stands between the request and the code, so the token
// of each flow comes by a refresh, with an assertion like that of a code.
func (b *bench) push(ctx context.Context) error {
	c, at, err := b.serve(ctx, "push")
	if err != nil {
		return err
	}
	defer c.stop()
	direct := authorizeAsk("/authorize", keyedID, "https://keyed.test/cb")
	direct.Want = 303
	proof := "client_id=" + url.QueryEscape(keyedID) + "&client_assertion_type=" + url.QueryEscape("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") +
		"&client_assertion={assertion}"
	token := ask{Method: "POST", Path: "/token", Body: "grant_type=refresh_token&refresh_token={token}&" + proof, Want: 200}
	pushed := ask{Method: "POST", Path: "/par", Body: direct.Path[len("/authorize?"):] + "&client_assertion_type=" +
		url.QueryEscape("urn:ietf:params:oauth:client-assertion-type:jwt-bearer") + "&client_assertion={assertion}", Want: 201}
	short := ask{Method: "GET", Path: "/authorize?client_id=" + url.QueryEscape(keyedID) + "&request_uri={uri}", Want: 303}
	flow := func(from int, asks ...ask) *peer {
		return &peer{name: "flow", server: c, load: load{
			Addr: at.Addr, Host: issuerHost, Workers: workers / 2, Asks: asks, Flow: true, Signer: at.Key, Tokens: at.Keyed[from : from+workers/2],
		}}
	}
	without, with := flow(0, direct, token), flow(workers/2, pushed, short, token)
	for _, p := range []*peer{without, with} { // warm
		if _, err := p.turn(ctx, b, b.slice)(); err != nil {
			return err
		}
		p.slowest, p.cost = 0, cost{}
	}
	s, err := take(rounds, without.turn(ctx, b, b.slice), with.turn(ctx, b, b.slice))
	if err != nil {
		return err
	}
	b.compare(row{
		what: "PAR, authorize, token, with private_key_jwt", note: "floor: the same flow without PAR, " + without.said() + "; figure: " + with.said() +
			"; the token comes by a refresh, for a person stands before a code",
	}, s, 0, "flows/s", atLeast(0.5))
	return nil
}

// polling measures devices that ask whether their person has answered, against the
// floor of a refresh: one signature and one row.
func (b *bench) polling(ctx context.Context) error {
	c, at, err := b.serve(ctx, "polling")
	if err != nil {
		return err
	}
	defer c.stop()
	floor := refreshing("floor", at.Floor, clientID, at.Tokens)
	floor.server = c
	polls := &peer{name: "polls", server: c, load: load{Addr: at.Addr, Host: issuerHost, Workers: workers, Want: []int{400}}}
	for _, code := range at.Devices {
		polls.load.Asks = append(polls.load.Asks, ask{Method: "POST", Path: "/token",
			Body: "grant_type=" + url.QueryEscape("urn:ietf:params:oauth:grant-type:device_code") + "&client_id=" + url.QueryEscape(clientID) + "&device_code=" + code})
	}
	if err := b.rightPolls(ctx, at, polls.load.Asks[0]); err != nil {
		return err
	}
	for _, p := range []*peer{floor, polls} { // warm
		if _, err := p.turn(ctx, b, b.slice)(); err != nil {
			return err
		}
		p.slowest, p.cost = 0, cost{}
	}
	s, err := take(rounds, floor.turn(ctx, b, b.slice), polls.turn(ctx, b, b.slice))
	if err != nil {
		return err
	}
	b.compare(row{
		what: "device polling", note: fmt.Sprintf("%d devices, most answers are slow_down, which writes like authorization_pending; floor: one ES256 signature and one row, %s; figure: %s", len(at.Devices), floor.said(), polls.said()),
	}, s, 0, "/s", atLeast(0.7))
	return nil
}

// rightPolls makes sure that what is measured are polls of devices that wait.
func (b *bench) rightPolls(ctx context.Context, at served, a ask) error {
	req, err := http.NewRequestWithContext(ctx, a.Method, "http://"+at.Addr+a.Path, strings.NewReader(a.Body))
	if err != nil {
		return err
	}
	req.Host = issuerHost
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<12))
	if err == nil && !strings.Contains(string(body), "authorization_pending") {
		err = fmt.Errorf("the first poll is answered %d %s", resp.StatusCode, body)
	}
	return err
}
