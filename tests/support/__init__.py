"""What tests share: daemons, clients, applications, a simulated world. Claims nothing."""
