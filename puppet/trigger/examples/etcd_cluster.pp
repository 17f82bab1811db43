# Each of three members of an etcd cluster, with Puppet's certificates, and its own agent.
class { 'trigger::install::etcd':
  client_urls => ['https://0.0.0.0:2379'],
  tls         => true,
  cluster     => {
    'etcd01.example.com' => 'https://etcd01.example.com:2380',
    'etcd02.example.com' => 'https://etcd02.example.com:2380',
    'etcd03.example.com' => 'https://etcd03.example.com:2380',
  },
}
-> class { 'trigger::watch::etcd':
  url => 'etcds://etcd01.example.com:2379,etcd02.example.com:2379,etcd03.example.com:2379',
}
