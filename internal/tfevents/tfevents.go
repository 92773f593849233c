// Package tfevents writes event files that TensorBoard reads: scalars by tag and
// step. A file is a sequence of TFRecords, each an Event message of TensorFlow's
// event.proto.
package tfevents

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of Event, Summary and Summary.Value in TensorFlow's event.proto and
// summary.proto.
const (
	eventWallTime    protowire.Number = 1 // double, seconds since 1970
	eventStep        protowire.Number = 2
	eventFileVersion protowire.Number = 3
	eventSummary     protowire.Number = 5
	summaryValue     protowire.Number = 1
	valueTag         protowire.Number = 1
	valueSimple      protowire.Number = 2 // float
)

// fileVersion is what the first event of a file must say.
const fileVersion = "brain.Event:2"

// A Scalar is the value of a curve at a step. It is stored as float32.
type Scalar struct {
	Tag   string
	Value float64
}

// A Writer appends events to a file, each in one Write.
type Writer struct{ w io.Writer }

// NewWriter begins a file.
func NewWriter(w io.Writer, at time.Time) (*Writer, error) {
	b := appendTime(nil, at)
	b = protowire.AppendTag(b, eventFileVersion, protowire.BytesType)
	b = protowire.AppendString(b, fileVersion)
	return &Writer{w}, writeRecord(w, b)
}

// Write appends the scalars of a step as one event.
func (w *Writer) Write(at time.Time, step int64, scalars []Scalar) error {
	var summary []byte
	for _, s := range scalars {
		var value []byte
		value = protowire.AppendTag(value, valueTag, protowire.BytesType)
		value = protowire.AppendString(value, s.Tag)
		value = protowire.AppendTag(value, valueSimple, protowire.Fixed32Type)
		value = protowire.AppendFixed32(value, math.Float32bits(float32(s.Value)))
		summary = protowire.AppendTag(summary, summaryValue, protowire.BytesType)
		summary = protowire.AppendBytes(summary, value)
	}
	b := appendTime(nil, at)
	b = protowire.AppendTag(b, eventStep, protowire.VarintType)
	b = protowire.AppendVarint(b, uint64(step))
	b = protowire.AppendTag(b, eventSummary, protowire.BytesType)
	b = protowire.AppendBytes(b, summary)
	return writeRecord(w.w, b)
}

func appendTime(b []byte, at time.Time) []byte {
	b = protowire.AppendTag(b, eventWallTime, protowire.Fixed64Type)
	return protowire.AppendFixed64(b, math.Float64bits(float64(at.UnixMicro())/1e6))
}

// writeRecord frames data as a TFRecord, little-endian: length (8 bytes), its
// checksum (4), data, its checksum (4).
func writeRecord(w io.Writer, data []byte) error {
	record := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	record = binary.LittleEndian.AppendUint32(record, mask(checksum(record)))
	record = append(record, data...)
	record = binary.LittleEndian.AppendUint32(record, mask(checksum(data)))
	if _, err := w.Write(record); err != nil {
		return fmt.Errorf("tfevents: %w", err)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// maskDelta is what TFRecord adds to a rotated checksum, so that one of data that
// holds checksums is not weak.
const maskDelta = 0xa282ead8

func mask(crc uint32) uint32 { return (crc>>15 | crc<<17) + maskDelta }
