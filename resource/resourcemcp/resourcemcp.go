// Package resourcemcp fits the guard of package resource to servers that are
// built on the Go MCP SDK.
//
// Tools and the scopes they need are registered in one place:
//
//	server := mcp.NewServer(&mcp.Implementation{Name: "tracker"}, nil)
//	scopes := resourcemcp.Scopes{}
//	resourcemcp.AddTool(server, scopes, &mcp.Tool{Name: "list_issues"}, listIssues, "issues:read")
//	resourcemcp.AddTool(server, scopes, &mcp.Tool{Name: "create_issue"}, createIssue, "issues:write")
//	guard, err := resource.New(resource.Config{…, Tools: scopes})
//	…
//	http.ListenAndServe(addr, resourcemcp.Handler(guard, server, nil))
//
// A tool learns who calls with resource.FromContext, and the SDK's own
// auth.TokenInfo is filled in too, so that handlers which read it, and the SDK's
// binding of sessions to users, work as they are.
package resourcemcp

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bonafide-id/bonafide/resource"
)

// Scopes maps tools to the scopes they need: the Tools of a resource.Config.
type Scopes map[string][]string

// AddTool adds a tool to the server, like mcp.AddTool, and notes the scopes that
// calling it needs beside the baseline. It panics when the tool was noted before.
func AddTool[In, Out any](s *mcp.Server, scopes Scopes, t *mcp.Tool, h mcp.ToolHandlerFor[In, Out], needs ...string) {
	if _, twice := scopes[t.Name]; twice {
		panic("resourcemcp: tool " + t.Name + " is added twice")
	}
	scopes[t.Name] = needs
	mcp.AddTool(s, t, h)
}

// Handler serves the server over Streamable HTTP behind the guard, together with
// the resource's metadata. options may be nil. The server must not be served by
// another guard.
//
// The guard decides on the bytes of each request; Handler also makes the server
// decide a second time on what the SDK has read from them, so that two readings
// can never come apart. Requests that reach the server in another way, such as
// over stdio, are not let through to tools.
func Handler(g *resource.Guard, server *mcp.Server, options *mcp.StreamableHTTPOptions) http.Handler {
	server.AddReceivingMiddleware(check(g))
	h := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, options)
	return g.Handler(WithTokenInfo(h))
}

// WithTokenInfo passes what the guard found out to handlers that ask the SDK
// (auth.TokenInfoFromContext, mcp.RequestExtra). It belongs between
// resource.Guard.Protect and an SDK handler. TokenInfo.UserID is unique across
// issuers; Extra holds "issuer", "subject" and "client_id". The token itself is
// not in it.
func WithTokenInfo(next http.Handler) http.Handler {
	// The SDK keeps its context key to itself, so the way in leads through its
	// middleware, with a placeholder where it expects the token.
	inner := auth.RequireBearerToken(tokenInfo, &auth.RequireBearerTokenOptions{
		ClockSkew: 100 * 365 * 24 * time.Hour, // expiry was decided by the guard, on its clock
	})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Authorization")
		next.ServeHTTP(w, r)
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := resource.FromContext(r.Context()); !ok {
			http.Error(w, "the request did not pass the guard", http.StatusInternalServerError)
			return
		}
		out := r.Clone(r.Context())
		out.Header.Set("Authorization", "Bearer verified")
		inner.ServeHTTP(w, out)
	})
}

func tokenInfo(ctx context.Context, _ string, _ *http.Request) (*auth.TokenInfo, error) {
	t, ok := resource.FromContext(ctx)
	if !ok {
		return nil, auth.ErrInvalidToken
	}
	return &auth.TokenInfo{
		Scopes:     t.Scopes,
		Expiration: t.Expires,
		UserID:     t.User(),
		Extra:      map[string]any{"issuer": t.Issuer, "subject": t.Subject, "client_id": t.ClientID, tokenMember: t},
	}, nil
}

const tokenMember = "bonafide.token"

// FromRequest returns the token of the very request that is being handled. In a
// session the context of a handler may be older than the request, so trust this,
// or the context of a server that [Handler] serves.
func FromRequest(req mcp.Request) (resource.Token, bool) {
	extra := req.GetExtra()
	if extra == nil || extra.TokenInfo == nil {
		return resource.Token{}, false
	}
	t, ok := extra.TokenInfo.Extra[tokenMember].(resource.Token)
	return t, ok
}

// check puts the request's own token into the handler's context and decides on
// the tool once more.
func check(g *resource.Guard) mcp.Middleware {
	return func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			t, ok := FromRequest(req)
			if ok {
				ctx = resource.NewContext(ctx, t)
			}
			if call, is := req.(*mcp.CallToolRequest); is {
				if !ok || !g.Permits(t, call.Params.Name) {
					return nil, &jsonrpc.Error{Code: jsonrpc.CodeInvalidRequest, Message: "this tool call is not permitted"}
				}
			}
			res, err := next(ctx, method, req)
			if list, is := res.(*mcp.ListToolsResult); is && err == nil && g.HidesTools() {
				hide(g, t, list)
			}
			return res, err
		}
	}
}

// hide leaves out of a list what the token does not cover, keeps the order of the
// server, and keeps caches from sharing it (RS-20).
func hide(g *resource.Guard, t resource.Token, list *mcp.ListToolsResult) {
	list.Tools = slices.DeleteFunc(list.Tools, func(tool *mcp.Tool) bool { return !g.Shows(t, tool.Name) })
	list.CacheScope = "private"
}

// The extensions of MCP that say how clients may get tokens beside the sign-in of
// a person, for [Advertise].
const (
	ClientCredentials = "io.modelcontextprotocol/oauth-client-credentials"
	EnterpriseManaged = "io.modelcontextprotocol/enterprise-managed-authorization"
)

// Advertise makes a server say which of the extensions its authorization server
// has, in the capabilities of initialize and server/discover (RS-30). It goes with
// the options that the server is made from.
func Advertise(o *mcp.ServerOptions, extensions ...string) {
	if o.Capabilities == nil {
		o.Capabilities = &mcp.ServerCapabilities{Logging: &mcp.LoggingCapabilities{}} //nolint:staticcheck // what the SDK says of itself where nothing is set
	}
	for _, name := range extensions {
		o.Capabilities.AddExtension(name, nil)
	}
}
