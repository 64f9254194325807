// franz-go, driven by lines of JSON; see tests/clients/matrix/drivers/json_lines.py.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"zafka/tests/clients/lines"
)

type open struct {
	client  *kgo.Client
	call    lines.Call
	sent    []*kgo.Record
	failed  chan error
	fetched []*kgo.Record
	read    []*kgo.Record // and not committed by hand
}

var clients = map[int]*open{}

func main() { lines.Serve(perform, codeOf) }

func codeOf(err error) *int16 {
	var known *kerr.Error
	if errors.As(err, &known) {
		return &known.Code
	}
	return nil
}

func perform(asked lines.Call) (lines.Answer, error) {
	switch asked.Op {
	case "version":
		return lines.Version("github.com/twmb/franz-go")
	case "writer":
		return nil, openWriter(asked)
	case "send":
		return nil, send(asked)
	case "flush":
		return flush(asked)
	case "reader":
		return nil, openReader(asked)
	case "read":
		return read(asked)
	case "member":
		return nil, join(asked)
	case "seek":
		clients[asked.ID].client.SetOffsets(map[string]map[int32]kgo.EpochOffset{
			asked.Topic: {*asked.Partition: {Epoch: -1, Offset: asked.Offset}}})
		return nil, nil
	case "commit":
		member := clients[asked.ID]
		read := member.read
		member.read = nil
		return nil, member.client.CommitRecords(context.Background(), read...)
	case "close":
		if asked := clients[asked.ID]; asked.call.Group != "" && !asked.call.Joining.ByHand {
			// What was read is committed at intervals, unless it is asked for.
			if err := asked.client.CommitUncommittedOffsets(context.Background()); err != nil {
				return nil, err
			}
		}
		clients[asked.ID].client.Close()
		delete(clients, asked.ID)
		return nil, nil
	}
	return administer(asked)
}

func base(asked lines.Call) []kgo.Opt {
	return []kgo.Opt{kgo.SeedBrokers(asked.Bootstrap), kgo.ClientID(asked.ClientID)}
}

func openWriter(asked lines.Call) error {
	own := append(base(asked), kgo.AllowAutoTopicCreation())
	given := asked.Settings
	if given.Codec != nil {
		codecs := map[string]kgo.CompressionCodec{
			"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
			"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
		own = append(own, kgo.ProducerBatchCompression(codecs[*given.Codec]))
	}
	if given.Acks != nil {
		acks := map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}
		own = append(own, kgo.RequiredAcks(acks[*given.Acks]), kgo.DisableIdempotentWrite())
	}
	if given.Idempotent != nil && !*given.Idempotent {
		own = append(own, kgo.DisableIdempotentWrite())
	}
	if given.LingerMs != nil {
		own = append(own, kgo.ProducerLinger(time.Duration(*given.LingerMs)*time.Millisecond))
	}
	if given.RecordBytesMax != nil {
		own = append(own, kgo.ProducerBatchMaxBytes(*given.RecordBytesMax), kgo.BrokerMaxWriteBytes(2**given.RecordBytesMax))
	}
	if given.GiveUpMs != nil {
		own = append(own, kgo.UnknownTopicRetries(1))
	}
	if asked.Partition != nil {
		own = append(own, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	client, err := kgo.NewClient(own...)
	clients[asked.ID] = &open{client: client, call: asked, failed: make(chan error, 1)}
	return err
}

func send(asked lines.Call) error {
	writer := clients[asked.ID]
	for _, one := range asked.Records {
		made := &kgo.Record{Topic: writer.call.Topic}
		if one.Key != nil {
			made.Key = *one.Key
		}
		if one.Value != nil {
			made.Value = *one.Value
		}
		if one.Timestamp != nil {
			made.Timestamp = time.UnixMilli(*one.Timestamp)
		}
		if writer.call.Partition != nil {
			made.Partition = *writer.call.Partition
		}
		for _, header := range one.Headers {
			value, err := lines.Unpacked(header[1])
			if err != nil {
				return err
			}
			made.Headers = append(made.Headers, kgo.RecordHeader{Key: header[0].(string), Value: value})
		}
		writer.sent = append(writer.sent, made)
		writer.client.Produce(context.Background(), made, func(_ *kgo.Record, err error) {
			if err != nil {
				select {
				case writer.failed <- err:
				default: // the first one is told
				}
			}
		})
	}
	return nil
}

func flush(asked lines.Call) (lines.Answer, error) {
	writer := clients[asked.ID]
	if err := writer.client.Flush(context.Background()); err != nil {
		return nil, err
	}
	select {
	case err := <-writer.failed:
		return nil, err
	default:
	}
	offsets := []int64{}
	for _, made := range writer.sent {
		offsets = append(offsets, made.Offset)
	}
	writer.sent = nil
	return lines.Answer{"offsets": offsets}, nil
}

func openReader(asked lines.Call) error {
	own := base(asked)
	given := asked.Settings
	reset := kgo.NewOffset().AtStart()
	if given.Reset == "latest" {
		reset = kgo.NewOffset().AtEnd()
	}
	own = append(own, kgo.ConsumeResetOffset(reset))
	if given.Committed {
		own = append(own, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if given.CreateOnRead {
		own = append(own, kgo.AllowAutoTopicCreation())
	}
	if given.RecordBytesMax != nil {
		own = append(own, kgo.FetchMaxPartitionBytes(*given.RecordBytesMax), kgo.FetchMaxBytes(*given.RecordBytesMax))
	}
	if given.WaitMs != nil {
		own = append(own, kgo.FetchMaxWait(time.Duration(*given.WaitMs)*time.Millisecond))
	}
	from := kgo.NewOffset()
	switch asked.Start {
	case "beginning":
		from = from.AtStart()
	case "end": // looked up now: the client would do it some time later
		end, err := boundOf(asked, (*kadm.Client).ListEndOffsets)
		if err != nil {
			return err
		}
		from = from.At(end)
	case "offset":
		from = from.At(asked.At)
	default:
		from = from.AfterMilli(asked.At)
	}
	places := map[int32]kgo.Offset{}
	for _, partition := range asked.Partitions {
		places[partition] = from
	}
	own = append(own, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{asked.Topic: places}))
	client, err := kgo.NewClient(own...)
	clients[asked.ID] = &open{client: client, call: asked}
	return err
}

func join(asked lines.Call) error {
	how, reset := asked.Joining, kgo.NewOffset().AtStart()
	if how.Reset == "none" {
		reset = kgo.NoResetOffset()
	}
	own := append(base(asked), kgo.ConsumerGroup(asked.Group), kgo.ConsumeTopics(asked.Topic),
		kgo.ConsumeResetOffset(reset),
		kgo.HeartbeatInterval(time.Duration(asked.Heartbeat)*time.Millisecond))
	if how.Cooperative {
		own = append(own, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	} else {
		own = append(own, kgo.Balancers(kgo.RangeBalancer())) // others know no other one of its
	}
	if how.Follows {
		age := time.Duration(asked.RefreshMs) * time.Millisecond
		own = append(own, kgo.MetadataMaxAge(age), kgo.MetadataMinAge(age))
	}
	if how.IsPattern {
		own = append(own, kgo.ConsumeRegex())
	}
	if how.Protocol == "consumer" {
		own = append(own, kgo.ServerSideBalancer())
	}
	if how.Instance != nil {
		own = append(own, kgo.InstanceID(*how.Instance))
	}
	if how.SessionMs != nil {
		own = append(own, kgo.SessionTimeout(time.Duration(*how.SessionMs)*time.Millisecond))
	}
	if how.ByHand {
		own = append(own, kgo.DisableAutoCommit())
	}
	client, err := kgo.NewClient(own...)
	clients[asked.ID] = &open{client: client, call: asked}
	return err
}

func read(asked lines.Call) (lines.Answer, error) {
	reader := clients[asked.ID]
	within, cancel := context.WithTimeout(context.Background(), time.Duration(asked.TimeoutMs)*time.Millisecond)
	defer cancel()
	for len(reader.fetched) < asked.Count && within.Err() == nil {
		fetches := reader.client.PollFetches(within)
		for _, failed := range fetches.Errors() {
			if codeOf(failed.Err) != nil && !kerr.IsRetriable(failed.Err) || errors.Is(failed.Err, kerr.UnknownTopicOrPartition) {
				return nil, failed.Err
			}
		}
		reader.fetched = append(reader.fetched, fetches.Records()...)
	}
	count := min(asked.Count, len(reader.fetched))
	records := []lines.Answer{}
	for _, one := range reader.fetched[:count] {
		headers := [][2]any{}
		for _, header := range one.Headers {
			headers = append(headers, [2]any{header.Key, header.Value})
		}
		records = append(records, lines.Answer{
			"partition": one.Partition, "offset": one.Offset, "key": one.Key, "value": one.Value, "headers": headers,
			"timestamp": one.Timestamp.UnixMilli(), "timestamp_type": one.Attrs.TimestampType()})
	}
	if asked := reader.call; asked.Group != "" && asked.Joining.ByHand {
		reader.read = append(reader.read, reader.fetched[:count]...)
	}
	reader.fetched = reader.fetched[count:]
	return lines.Answer{"records": records}, nil
}
