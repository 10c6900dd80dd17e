package directory

import "context"

// Known returns a client as well as it is known without a fetch: from the
// document in the cache if there is one, else as [Directory.Stored] does. It is
// for what concerns a client that people have agreed to and needs its newest
// addresses rather than those of the consent, such as where a signed-out person
// goes and who is told. The caller looks at State.
func (d *Directory) Known(ctx context.Context, clientID string) (*Client, error) {
	c, err := d.Stored(ctx, clientID)
	if err != nil || c.Doc == nil {
		return c, err
	}
	row, _, err := d.row(ctx, clientID)
	if err != nil || row.Pinned > 0 {
		return c, err
	}
	if doc, ok := d.resolver.Cached(ctx, c.Doc.ID); ok {
		newest := fromDocument(doc, d.Policy())
		newest.State, newest.Version = c.State, c.Version
		return newest, nil
	}
	return c, nil
}
