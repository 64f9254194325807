// What is looked up, and what admins do, by kadm.
package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"zafka/tests/clients/lines"
)

func boundOf(asked lines.Call, list func(*kadm.Client, context.Context, ...string) (kadm.ListedOffsets, error)) (int64, error) {
	client, err := kgo.NewClient(base(asked)...)
	if err != nil {
		return 0, err
	}
	defer client.Close()
	told, err := list(kadm.NewClient(client), context.Background(), asked.Topic)
	if err != nil {
		return 0, err
	}
	found, ok := told.Lookup(asked.Topic, 0)
	if !ok {
		return 0, fmt.Errorf("%s is not in the answer", asked.Topic)
	}
	return found.Offset, found.Err
}

func administer(asked lines.Call) (lines.Answer, error) {
	client, err := kgo.NewClient(base(asked)...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin, within := kadm.NewClient(client), context.Background()
	switch asked.Op {
	case "bounds":
		first, err := boundOf(asked, (*kadm.Client).ListStartOffsets)
		if err != nil {
			return nil, err
		}
		end, err := boundOf(asked, (*kadm.Client).ListEndOffsets)
		return lines.Answer{"offsets": []int64{first, end}}, err
	case "offset_at":
		told, err := admin.ListOffsetsAfterMilli(within, asked.At, asked.Topic)
		if err != nil {
			return nil, err
		}
		found, _ := told.Lookup(asked.Topic, 0)
		if found.Timestamp < 0 { // it turns "none" into the end of the log
			return lines.Answer{"offset": nil}, found.Err
		}
		return lines.Answer{"offset": found.Offset}, found.Err
	case "partitions":
		told, err := admin.ListTopics(within, asked.Topic)
		if err != nil {
			return nil, err
		}
		return lines.Answer{"count": len(told[asked.Topic].Partitions)}, told[asked.Topic].Err
	case "create":
		told, err := admin.CreateTopic(within, int32(asked.Count), 1, nil, asked.Topic)
		if err == nil {
			err = told.Err
		}
		return nil, err
	case "delete":
		told, err := admin.DeleteTopics(within, asked.Topic)
		if err == nil {
			err = told.Error()
		}
		return nil, err
	case "topics":
		told, err := admin.ListTopics(within)
		return lines.Answer{"topics": told.Names()}, err
	case "add_partitions":
		told, err := admin.UpdatePartitions(within, asked.Count, asked.Topic)
		if err == nil {
			err = told.Error()
		}
		return nil, err
	case "delete_records":
		offsets := kadm.Offsets{}
		offsets.AddOffset(asked.Topic, 0, asked.At, -1)
		told, err := admin.DeleteRecords(within, offsets)
		if err == nil {
			err = told.Error()
		}
		return nil, err
	case "cluster":
		told, err := admin.BrokerMetadata(within)
		return lines.Answer{"id": told.Cluster, "controller": told.Controller, "brokers": told.Brokers.NodeIDs()}, err
	case "config", "alter_config":
		return configure(within, admin, asked)
	}
	return administerGroups(within, admin, asked)
}

func configure(within context.Context, admin *kadm.Client, asked lines.Call) (lines.Answer, error) {
	broker, _ := strconv.Atoi(asked.Name)
	if asked.Op == "config" {
		var told kadm.ResourceConfigs
		var err error
		if asked.Kind == "broker" {
			told, err = admin.DescribeBrokerConfigs(within, int32(broker))
		} else {
			told, err = admin.DescribeTopicConfigs(within, asked.Name)
		}
		if err != nil {
			return nil, err
		}
		values := map[string]*string{}
		for _, each := range told[0].Configs {
			values[each.Key] = each.Value
		}
		return lines.Answer{"values": values}, told[0].Err
	}
	wanted := []kadm.AlterConfig{}
	for name, value := range asked.Values {
		op := kadm.SetConfig
		if value == nil {
			op = kadm.DeleteConfig
		}
		wanted = append(wanted, kadm.AlterConfig{Op: op, Name: name, Value: value})
	}
	var told kadm.AlterConfigsResponses
	var err error
	if asked.Kind == "broker" {
		told, err = admin.AlterBrokerConfigs(within, wanted, int32(broker))
	} else {
		told, err = admin.AlterTopicConfigs(within, wanted, asked.Name)
	}
	if err == nil {
		err = told[0].Err
	}
	return nil, err
}

func administerGroups(within context.Context, admin *kadm.Client, asked lines.Call) (lines.Answer, error) {
	switch asked.Op {
	case "groups":
		told, err := admin.ListGroups(within)
		return lines.Answer{"groups": told.Groups()}, err
	case "group":
		told, err := admin.DescribeGroups(within, asked.Group)
		if err != nil {
			return nil, err
		}
		found := told[asked.Group]
		return lines.Answer{"state": found.State, "members": len(found.Members)}, found.Err
	case "group_offsets":
		told, err := admin.FetchOffsets(within, asked.Group)
		offsets := [][2]int64{}
		for partition, found := range told[asked.Topic] {
			offsets = append(offsets, [2]int64{int64(partition), found.At})
		}
		return lines.Answer{"offsets": offsets}, err
	case "set_group_offsets":
		offsets := kadm.Offsets{}
		for _, each := range asked.Offsets {
			offsets.AddOffset(asked.Topic, int32(each[0]), each[1], -1)
		}
		return nil, admin.CommitAllOffsets(within, asked.Group, offsets)
	case "delete_group_offsets":
		places := kadm.TopicsSet{}
		places.Add(asked.Topic, *asked.Partition)
		told, err := admin.DeleteOffsets(within, asked.Group, places)
		if err == nil {
			err = told.Error()
		}
		return nil, err
	case "delete_group":
		told, err := admin.DeleteGroup(within, asked.Group)
		if err == nil {
			err = told.Err
		}
		return nil, err
	}
	return nil, fmt.Errorf("unknown call %q", asked.Op)
}
