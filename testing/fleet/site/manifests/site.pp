# The fleet of the test: roles by the names of the nodes.
node /\Apuppet\./ { include profile::server }
node /\Alb\d+\./ { include profile::balancer }
node /\Aweb\d+\./ { include profile::web }
node default {}
