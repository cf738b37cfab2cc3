package detect

import (
	"testing"

	"github.com/connsleuth/connsleuth/internal/lab"
)

func TestMain(m *testing.M) { lab.Main(fullRun{m}) }
