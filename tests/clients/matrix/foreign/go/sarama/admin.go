// What is looked up, and what admins do.
package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/IBM/sarama"

	"zafka/tests/clients/lines"
)

func administer(asked lines.Call) (lines.Answer, error) {
	own := base(asked)
	own.Metadata.AllowAutoTopicCreation = false // who looks something up is not to create it
	client, err := sarama.NewClient([]string{asked.Bootstrap}, own)
	if err != nil {
		return nil, err
	}
	admin, err := sarama.NewClusterAdminFromClient(client)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	answer, err := lookUp(client, admin, asked)
	return answer, errors.Join(err, admin.Close())
}

func lookUp(client sarama.Client, admin sarama.ClusterAdmin, asked lines.Call) (lines.Answer, error) {
	switch asked.Op {
	case "bounds":
		first, err := client.GetOffset(asked.Topic, 0, sarama.OffsetOldest)
		if err != nil {
			return nil, err
		}
		end, err := client.GetOffset(asked.Topic, 0, sarama.OffsetNewest)
		return lines.Answer{"offsets": []int64{first, end}}, err
	case "offset_at":
		found, err := client.GetOffset(asked.Topic, 0, asked.At)
		if found < 0 {
			return lines.Answer{"offset": nil}, err
		}
		return lines.Answer{"offset": found}, err
	case "partitions":
		told, err := client.Partitions(asked.Topic)
		return lines.Answer{"count": len(told)}, err
	case "create":
		return nil, admin.CreateTopic(asked.Topic, &sarama.TopicDetail{NumPartitions: int32(asked.Count), ReplicationFactor: 1}, false)
	case "delete":
		return nil, admin.DeleteTopic(asked.Topic)
	case "topics":
		told, err := admin.ListTopics()
		names := []string{}
		for name := range told {
			names = append(names, name)
		}
		return lines.Answer{"topics": names}, err
	case "add_partitions":
		return nil, admin.CreatePartitions(asked.Topic, int32(asked.Count), nil, false)
	case "delete_records":
		return nil, admin.DeleteRecords(asked.Topic, map[int32]int64{0: asked.At})
	case "cluster":
		return cluster(client, admin)
	case "config", "alter_config":
		return configure(admin, asked)
	}
	return administerGroups(admin, asked)
}

func cluster(client sarama.Client, admin sarama.ClusterAdmin) (lines.Answer, error) {
	brokers, controller, err := admin.DescribeCluster()
	if err != nil {
		return nil, err
	}
	ids := []int32{}
	for _, broker := range brokers {
		ids = append(ids, broker.ID())
	}
	_ = brokers[0].Open(client.Config()) // it may be open; what fails is told by the request
	told, err := brokers[0].GetMetadata(sarama.NewMetadataRequest(client.Config().Version, []string{}))
	if err != nil {
		return nil, err
	}
	return lines.Answer{"id": told.ClusterID, "controller": controller, "brokers": ids}, brokers[0].Close()
}

var kinds = map[string]sarama.ConfigResourceType{"topic": sarama.TopicResource, "broker": sarama.BrokerResource}

func configure(admin sarama.ClusterAdmin, asked lines.Call) (lines.Answer, error) {
	kind := kinds[asked.Kind]
	if asked.Op == "config" {
		told, err := admin.DescribeConfig(sarama.ConfigResource{Type: kind, Name: asked.Name})
		values := map[string]string{}
		for _, each := range told {
			values[each.Name] = each.Value
		}
		return lines.Answer{"values": values}, err
	}
	changes := map[string]sarama.IncrementalAlterConfigsEntry{}
	for key, value := range asked.Values {
		operation := sarama.IncrementalAlterConfigsOperationSet
		if value == nil {
			operation = sarama.IncrementalAlterConfigsOperationDelete
		}
		changes[key] = sarama.IncrementalAlterConfigsEntry{Operation: operation, Value: value}
	}
	return nil, admin.IncrementalAlterConfig(kind, asked.Name, changes, false)
}

func administerGroups(admin sarama.ClusterAdmin, asked lines.Call) (lines.Answer, error) {
	switch asked.Op {
	case "groups":
		told, err := admin.ListConsumerGroups()
		names := []string{}
		for name := range told {
			names = append(names, name)
		}
		return lines.Answer{"groups": names}, err
	case "group":
		told, err := admin.DescribeConsumerGroups([]string{asked.Group})
		if err != nil {
			return nil, err
		}
		if found := told[0]; found.Err != sarama.ErrNoError {
			return nil, found.Err
		}
		return lines.Answer{"state": strings.ToLower(told[0].State), "members": len(told[0].Members)}, nil
	case "group_offsets":
		told, err := admin.ListConsumerGroupOffsets(asked.Group, nil)
		if err != nil {
			return nil, err
		}
		offsets := [][2]int64{}
		for partition, found := range told.Blocks[asked.Topic] {
			offsets = append(offsets, [2]int64{int64(partition), found.Offset})
		}
		return lines.Answer{"offsets": offsets}, nil
	case "set_group_offsets":
		wanted := map[int32]sarama.OffsetAndMetadata{}
		for _, each := range asked.Offsets {
			wanted[int32(each[0])] = sarama.OffsetAndMetadata{Offset: each[1], LeaderEpoch: -1}
		}
		told, err := admin.AlterConsumerGroupOffsets(asked.Group, map[string]map[int32]sarama.OffsetAndMetadata{asked.Topic: wanted}, nil)
		if err != nil {
			return nil, err
		}
		for _, failed := range told.Errors[asked.Topic] {
			if failed != sarama.ErrNoError {
				return nil, failed
			}
		}
		return nil, nil
	case "delete_group_offsets":
		return nil, admin.DeleteConsumerGroupOffset(asked.Group, asked.Topic, *asked.Partition)
	case "delete_group":
		return nil, admin.DeleteConsumerGroup(asked.Group)
	}
	return nil, fmt.Errorf("unknown call %q", asked.Op)
}
