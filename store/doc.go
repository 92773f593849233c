// Package store brings files from object stores to this machine and back.
//
// A place in a store is a URL: s3://bucket/key, gs://bucket/key, azblob://container/key
// (in builds with the tag azure) or file:///path. [Fetch] brings an object, everything
// below a prefix (a folder), or what a pattern matches into a local cache, where each
// version of an object is kept once. [Push] writes a folder, so that its marker (the
// file that makes it whole, such as a manifest) is there only while all else is.
//
// Interrupted or failed, both leave nothing half visible: bytes arrive under hidden
// names, are checked against size and checksum, and are renamed. Failures that may pass
// are tried again, more slowly each time. Credentials come from where the stores' own
// tools find them: environment, profiles, the machine's identity.
package store
