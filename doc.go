// Package bonafide is the root of the Bonafide module: an OAuth authorization
// server, library, guard and toolkit for clients whose client_id is the URL of a
// document that says who they are (Client ID Metadata Documents).
//
// The packages to import are [github.com/bonafide-id/bonafide/cimd] (resolve a
// client_id safely), [github.com/bonafide-id/bonafide/resource] (protect an MCP
// server), [github.com/bonafide-id/bonafide/client] (sign in and call one) and
// [github.com/bonafide-id/bonafide/oauth] (the words they share). The daemon is
// in cmd/bonafide.
package bonafide
