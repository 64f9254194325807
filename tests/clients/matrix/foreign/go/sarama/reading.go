// What is read: from partitions that are assigned, or as a member of a group.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/IBM/sarama"

	"zafka/tests/clients/lines"
)

type reader struct {
	consumer sarama.Consumer
	found    chan *sarama.ConsumerMessage
}

func newReader(asked lines.Call) (*reader, error) {
	own, given := base(asked), asked.Settings
	if given.Committed {
		own.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	if given.RecordBytesMax != nil {
		own.Consumer.Fetch.Default = *given.RecordBytesMax
	}
	if given.WaitMs != nil {
		own.Consumer.MaxWaitTime = time.Duration(*given.WaitMs) * time.Millisecond
		own.Net.ReadTimeout = own.Consumer.MaxWaitTime + 30*time.Second
	}
	client, err := sarama.NewClient([]string{asked.Bootstrap}, own)
	if err != nil {
		return nil, err
	}
	consumer, err := sarama.NewConsumerFromClient(client)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	made := &reader{consumer: consumer, found: make(chan *sarama.ConsumerMessage)}
	for _, partition := range asked.Partitions {
		from, err := startOf(client, asked, partition)
		if err == nil {
			err = made.follow(asked.Topic, partition, from)
		}
		if err != nil {
			return nil, errors.Join(err, consumer.Close())
		}
	}
	return made, nil
}

func startOf(client sarama.Client, asked lines.Call, partition int32) (int64, error) {
	switch asked.Start {
	case "beginning":
		return sarama.OffsetOldest, nil
	case "end":
		return sarama.OffsetNewest, nil // which it looks up at once
	case "offset":
		return asked.At, nil
	}
	return client.GetOffset(asked.Topic, partition, asked.At)
}

func (r *reader) follow(topic string, partition int32, from int64) error {
	following, err := r.consumer.ConsumePartition(topic, partition, from)
	if err != nil {
		return err
	}
	go func() {
		for one := range following.Messages() {
			r.found <- one
		}
	}()
	return nil
}

func (r *reader) read(count int, within time.Duration) ([]*sarama.ConsumerMessage, error) {
	gathered, over := []*sarama.ConsumerMessage{}, time.After(within)
	for len(gathered) < count {
		select {
		case one := <-r.found:
			gathered = append(gathered, one)
		case <-over:
			return gathered, nil
		}
	}
	return gathered, nil
}

func (r *reader) close() error { return r.consumer.Close() }

// A member is asked for records one by one: what it was not asked for, another one is given after a rebalance.
type member struct {
	group   sarama.ConsumerGroup
	leave   context.CancelFunc
	ended   chan struct{}
	byHand  bool
	found   chan claimed
	session sarama.ConsumerGroupSession
	unsaid  []*sarama.ConsumerMessage // read, and not committed by hand
}

type claimed struct {
	session sarama.ConsumerGroupSession
	message *sarama.ConsumerMessage
}

func newMember(asked lines.Call) (*member, error) {
	own, how := base(asked), asked.Joining
	own.Consumer.Offsets.Initial = sarama.OffsetOldest
	own.Consumer.Group.Heartbeat.Interval = time.Duration(asked.Heartbeat) * time.Millisecond
	if how.Cooperative {
		own.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{sarama.NewBalanceStrategyCooperativeSticky()}
	}
	if how.Instance != nil {
		own.Consumer.Group.InstanceId = *how.Instance
	}
	if how.SessionMs != nil {
		own.Consumer.Group.Session.Timeout = time.Duration(*how.SessionMs) * time.Millisecond
	}
	if how.Follows {
		own.Metadata.RefreshFrequency = time.Duration(asked.RefreshMs) * time.Millisecond
	}
	own.Consumer.Offsets.AutoCommit.Enable = !how.ByHand
	group, err := sarama.NewConsumerGroup([]string{asked.Bootstrap}, asked.Group, own)
	if err != nil {
		return nil, err
	}
	within, leave := context.WithCancel(context.Background())
	made := &member{group: group, leave: leave, ended: make(chan struct{}), byHand: how.ByHand, found: make(chan claimed)}
	go func() {
		defer close(made.ended)
		for within.Err() == nil { // it ends with each rebalance that takes everything away, and with errors
			if err := group.Consume(within, []string{asked.Topic}, made); errors.Is(err, sarama.ErrClosedConsumerGroup) {
				return
			}
		}
	}()
	return made, nil
}

func (m *member) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (m *member) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		select {
		case m.found <- claimed{session, message}:
		case <-session.Context().Done():
			return nil
		}
	}
	return nil
}

func (m *member) read(count int, within time.Duration) ([]*sarama.ConsumerMessage, error) {
	gathered, over := []*sarama.ConsumerMessage{}, time.After(within)
	for len(gathered) < count {
		select {
		case one := <-m.found:
			m.session = one.session
			gathered = append(gathered, one.message)
			if m.byHand {
				m.unsaid = append(m.unsaid, one.message)
			} else {
				one.session.MarkMessage(one.message, "")
			}
		case <-over:
			return gathered, nil
		}
	}
	return gathered, nil
}

func (m *member) commit() {
	for _, one := range m.unsaid {
		m.session.MarkMessage(one, "")
	}
	m.unsaid = nil
	m.session.Commit()
}

func (m *member) close() error {
	m.leave()
	<-m.ended
	return m.group.Close()
}
