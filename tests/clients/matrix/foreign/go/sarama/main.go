// sarama, driven by lines of JSON; see tests/clients/matrix/drivers/json_lines.py.
// SARAMA_VERSION=4.3.0 has it speak as to a broker of that version, and not as its default does.
package main

import (
	"errors"
	"os"
	"time"

	"github.com/IBM/sarama"

	"zafka/tests/clients/lines"
)

type opened interface {
	read(count int, within time.Duration) ([]*sarama.ConsumerMessage, error)
	close() error
}

var (
	writers = map[int]*writer{}
	readers = map[int]opened{}
)

func main() {
	if given := os.Getenv("SARAMA_VERSION"); given != "" {
		if _, err := sarama.ParseKafkaVersion(given); err != nil {
			panic(err)
		}
	}
	lines.Serve(perform, codeOf)
}

func codeOf(err error) *int16 {
	var known sarama.KError
	if errors.As(err, &known) {
		code := int16(known)
		return &code
	}
	return nil
}

func perform(asked lines.Call) (lines.Answer, error) {
	var err error
	switch asked.Op {
	case "version":
		return lines.Version("github.com/IBM/sarama")
	case "writer":
		writers[asked.ID], err = newWriter(asked)
		return nil, err
	case "send":
		return nil, writers[asked.ID].send(asked.Records)
	case "flush":
		return writers[asked.ID].flush()
	case "reader":
		readers[asked.ID], err = newReader(asked)
		return nil, err
	case "member":
		readers[asked.ID], err = newMember(asked)
		return nil, err
	case "read":
		found, err := readers[asked.ID].read(asked.Count, time.Duration(asked.TimeoutMs)*time.Millisecond)
		return told(found), err
	case "commit":
		readers[asked.ID].(*member).commit()
		return nil, nil
	case "close":
		if reader, is := readers[asked.ID]; is {
			delete(readers, asked.ID)
			return nil, reader.close()
		}
		closing := writers[asked.ID]
		delete(writers, asked.ID)
		return nil, closing.close()
	}
	return administer(asked)
}

func base(asked lines.Call) *sarama.Config {
	own := sarama.NewConfig()
	own.ClientID = asked.ClientID
	if given := os.Getenv("SARAMA_VERSION"); given != "" {
		own.Version, _ = sarama.ParseKafkaVersion(given)
	}
	return own
}

func told(found []*sarama.ConsumerMessage) lines.Answer {
	records := []lines.Answer{}
	for _, one := range found {
		headers := [][2]any{}
		for _, header := range one.Headers {
			headers = append(headers, [2]any{string(header.Key), header.Value})
		}
		records = append(records, lines.Answer{
			"partition": one.Partition, "offset": one.Offset, "key": one.Key, "value": one.Value, "headers": headers,
			"timestamp": one.Timestamp.UnixMilli(), "timestamp_type": nil})
	}
	return lines.Answer{"records": records}
}

// A writer hands over without waiting; what became of all of it is told by flush.
type writer struct {
	call     lines.Call
	producer sarama.AsyncProducer
	pending  int
	sent     []*sarama.ProducerMessage
	settled  chan error
}

func newWriter(asked lines.Call) (*writer, error) {
	own, given := base(asked), asked.Settings
	own.Producer.Return.Successes = true
	if given.Codec != nil {
		if err := own.Producer.Compression.UnmarshalText([]byte(*given.Codec)); err != nil {
			return nil, err
		}
	}
	if given.Acks != nil {
		own.Producer.RequiredAcks = map[string]sarama.RequiredAcks{
			"0": sarama.NoResponse, "1": sarama.WaitForLocal, "all": sarama.WaitForAll}[*given.Acks]
	}
	if given.Idempotent != nil && *given.Idempotent {
		own.Producer.Idempotent = true // which wants the next two so
		own.Producer.RequiredAcks = sarama.WaitForAll
		own.Net.MaxOpenRequests = 1
		own.Producer.Retry.Max = 1000 // the others do not stop, either
	}
	if given.LingerMs != nil {
		own.Producer.Flush.Frequency = time.Duration(*given.LingerMs) * time.Millisecond
	}
	if given.RecordBytesMax != nil {
		own.Producer.MaxMessageBytes = int(*given.RecordBytesMax)
	}
	if asked.Partition != nil {
		own.Producer.Partitioner = sarama.NewManualPartitioner
	}
	producer, err := sarama.NewAsyncProducer([]string{asked.Bootstrap}, own)
	if err != nil {
		return nil, err
	}
	made := &writer{call: asked, producer: producer, settled: make(chan error, 1<<16)}
	go func() {
		for range producer.Successes() {
			made.settled <- nil
		}
	}()
	go func() {
		for failed := range producer.Errors() {
			made.settled <- failed.Err
		}
	}()
	return made, nil
}

func (w *writer) send(records []lines.Record) error {
	for _, one := range records {
		made := &sarama.ProducerMessage{Topic: w.call.Topic}
		if one.Key != nil {
			made.Key = sarama.ByteEncoder(*one.Key)
		}
		if one.Value != nil {
			made.Value = sarama.ByteEncoder(*one.Value)
		}
		if one.Timestamp != nil {
			made.Timestamp = time.UnixMilli(*one.Timestamp)
		}
		if w.call.Partition != nil {
			made.Partition = *w.call.Partition
		}
		for _, header := range one.Headers {
			value, err := lines.Unpacked(header[1])
			if err != nil {
				return err
			}
			made.Headers = append(made.Headers, sarama.RecordHeader{Key: []byte(header[0].(string)), Value: value})
		}
		w.sent = append(w.sent, made)
		w.pending++
		w.producer.Input() <- made
	}
	return nil
}

func (w *writer) flush() (lines.Answer, error) {
	var failed error
	for ; w.pending > 0; w.pending-- {
		if err := <-w.settled; failed == nil {
			failed = err
		}
	}
	offsets := []int64{}
	for _, made := range w.sent {
		offsets = append(offsets, made.Offset)
	}
	w.sent = nil
	return lines.Answer{"offsets": offsets}, failed
}

func (w *writer) close() error {
	w.producer.AsyncClose() // the two that read what became of records end with it
	_, _ = w.flush()        // it was told by the one before
	return nil
}
