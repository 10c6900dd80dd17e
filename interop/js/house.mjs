// What every script needs: where the house is, a person, and a way to say what
// was seen. The runner reads standard output, one JSON object a line.
export const env = process.env

export function check (text, ok, more) {
  console.log(JSON.stringify({ ok: Boolean(ok), text: more ? `${text}: ${more}` : text }))
  if (!ok) process.exit(1)
}

export function done () {
  console.log(JSON.stringify({ done: true }))
  process.exit(0)
}

// person opens an address in a browser without cookies, signs in, allows, and
// returns where the browser was sent.
export async function person (url) {
  const r = await fetch(env.PERSON + '?url=' + encodeURIComponent(String(url)))
  const text = await r.text()
  check('the person signs in and agrees', r.ok, r.ok ? '' : text)
  return new URL(text)
}

// nameOf names an error: minified classes keep theirs in name.
export function nameOf (e) { return e?.name === 'Error' ? e.constructor.name : e?.name }

process.on('uncaughtException', e => {
  const lines = [String(e?.stack ?? e).split('\n').slice(0, 3).join(' ')]
  for (let c = e?.cause; c; c = c.cause) lines.push(String(c?.message ?? JSON.stringify(c)))
  check(lines.join(' <- '), false)
})
