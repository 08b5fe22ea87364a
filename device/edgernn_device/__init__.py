"""What runs on the device: samples in over MQTT, alerts out. Never imports torch or onnx."""
