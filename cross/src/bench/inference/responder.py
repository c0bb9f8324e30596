#!/usr/bin/env python3
"""The peer: a responder as people write one with paho-mqtt and onnxruntime, tuned.

TCP_NODELAY on, orjson for the header, one thread for ONNX Runtime without spinning, no bounds on messages in flight.
Takes one raw FP32 tensor of rows of 64 and answers as the agent does: a JSON header, then binary tensors. It checks
nothing, forgets what it answered, and acknowledges before it has answered.
"""

import socket
import sys

import numpy
import onnxruntime
import orjson
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, graph, topic = int(sys.argv[1]), sys.argv[2], sys.argv[3]

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
outputs = [output.name for output in session.get_outputs()]
datatypes = {"float32": "FP32", "int64": "INT64"}


def answer(client, _, message):
    pixels = numpy.frombuffer(message.payload, dtype=numpy.float32).reshape(-1, 64)
    results = session.run(outputs, {name: pixels})
    header = orjson.dumps(
        {
            "model_name": "digits",
            "model_version": "1",
            "outputs": [
                {
                    "name": output,
                    "datatype": datatypes[str(result.dtype)],
                    "shape": result.shape,
                    "parameters": {"binary_data_size": result.nbytes},
                }
                for output, result in zip(outputs, results)
            ],
        }
    )
    properties = Properties(PacketTypes.PUBLISH)
    properties.CorrelationData = message.properties.CorrelationData
    properties.ContentType = "application/octet-stream"
    properties.UserProperty = [("status", "200"), ("inference-header-content-length", str(len(header)))]
    body = b"".join([header, *(result.tobytes() for result in results)])
    client.publish(message.properties.ResponseTopic, body, qos=message.qos, properties=properties)


def without_delay(_client, _, sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="peer", protocol=mqtt.MQTTv5)
client.max_inflight_messages_set(1000)
client.max_queued_messages_set(0)
client.on_socket_open = without_delay
client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
client.on_message = answer
client.connect("127.0.0.1", port)
client.loop_forever()
