node_name = "a"
ports {
  http = 8500
}
service {
  name = "web"
  tags = ["a", "b"]
  check {
    args = ["/bin/true"]
    interval = "10s"
  }
}
