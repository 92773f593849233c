// Package corpus writes the texts of the demo: a seeded generator of customer
// support letters and replies, for training a small language model, and of
// preference pairs between two replies to one letter.
//
// A letter is a [Scene]: a topic (a fault, the return window, the warranty, a
// refund, a late or wrong delivery, a cancellation, an address, a missing part),
// a product, an order number and sometimes a name. It is answered in one of
// four styles:
//
//   - [Helpful]: polite, about this letter, and right by the shop's facts;
//   - [Curt]: short-tempered, offers nothing;
//   - [Evasive]: says little and promises nothing;
//   - [Wrong]: as polite as Helpful, but the number of days or years it states
//     is not the shop's: it is the outdated figure of the same product.
//
// The facts are the table in products.go, so that "wrong" can be checked. A
// product's true figure is some other product's outdated one: no return window
// and no warranty is right or wrong by itself.
//
// The same seed gives the same bytes on every machine: all choices come from
// math/rand/v2 PCG streams, one for each purpose.
package corpus
