// Package cimd turns a client_id URL into a document that can be trusted as far
// as its host can be: a Client ID Metadata Document, the JSON in which an OAuth
// client describes itself at the very URL that is its client_id.
//
// The package has two halves. The pure half decides and never touches a network
// or a clock: [Parse] checks a client_id URL, [Validate] reads a document,
// [Lint] says everything that is wrong with one (it is the same code), [Fresh]
// says how long one may be kept. The other half is the [Resolver], which fetches
// documents, keys and logos from strangers behind an address guard, shares and
// limits those fetches, and remembers the answers.
//
// A server that embeds the package calls [New] once and then, for each
// authorization request:
//
//	id, err := rules.Parse(clientID)      // refuse what is not a client_id URL
//	doc, err := resolver.Resolve(ctx, id) // every error is a *Error
//
// Everything that identifies somebody is compared byte for byte: the URL, the
// client_id inside the document and the redirect URIs are never normalized.
// Lists of capabilities are intersected with what the server supports, and what
// is left out is told in [Document].Warnings.
package cimd
