
echo "the box restarts in 10 s"
sleep 10
reset
